"""`ck-mlperf explore` with the `ck` that is first on PATH, and a grace of $GRACE_S."""

import functools
import os
import sys

from ck_mlperf.commands import cli
from ck_mlperf.explore import session

session.LocalExecutor = functools.partial(
    session.LocalExecutor, grace_s=float(os.environ["GRACE_S"])
)
sys.executable = "/no/python"
cli()
