"""As CK's own code that ends in what argv[1] names, after a hook was called."""

import errno
import os
import signal
import sys

from ck_mlperf.catalog.kernel import hook


@hook
def setup(i: dict) -> dict:
    return {"return": 0}


setup({})
print("before", flush=True)
if sys.argv[1] == "interrupt":
    signal.raise_signal(signal.SIGINT)
elif sys.argv[1] == "pipe":
    sys.stdin.read()  # until the reader of stdout is gone
    print("after", flush=True)
elif sys.argv[1] == "disk":
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of a file that CK closes
else:
    raise ValueError("a defect")
