"""python -m ck_mlperf.explore explore --repository=FOLDER --KEY=VALUE..."""

import sys

from ck_mlperf.common.errors import run_main
from ck_mlperf.explore.cli import main

run_main(lambda: main(sys.argv[1:]))
