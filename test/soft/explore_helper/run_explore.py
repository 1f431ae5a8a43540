"""`python -m explore_helper` with the `ck` that is first on PATH, and a grace of $GRACE_S."""

import os
import sys

from explore_helper import local
from explore_helper.cli import main
from imagenet_helper.errors import run_main

local.GRACE_S = float(os.environ["GRACE_S"])
sys.executable = "/no/python"
run_main(lambda: main(sys.argv[1:]))
