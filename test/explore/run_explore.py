"""`python -m ck_mlperf.explore` with the `ck` that is first on PATH, and a grace of $GRACE_S."""

import os
import sys

from ck_mlperf.common.errors import run_main
from ck_mlperf.explore import local
from ck_mlperf.explore.cli import main

local.GRACE_S = float(os.environ["GRACE_S"])
sys.executable = "/no/python"
run_main(lambda: main(sys.argv[1:]))
