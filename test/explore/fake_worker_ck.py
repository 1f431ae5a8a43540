"""Stands in for the `ck` of a Dask worker's machine: what fake_ck.py does, and `find` and `rm`.

$FAKE_CHECKOUT is where the repository is.
"""

import os
import runpy
import shutil
import sys
from pathlib import Path

home = Path(os.environ["FAKE_CK"])
action, what = sys.argv[1:3]
if action == "find":
    print({"repo:local": home / "local", "repo:ck-mlperf": os.environ["FAKE_CHECKOUT"]}[what])
elif action == "rm":
    assert sys.argv[3:] == ["--force"]
    shutil.rmtree(home / "local" / "experiment" / what.split(":")[2])
else:
    if action == "benchmark":
        (folder,) = [word for word in sys.argv if word.startswith("--tmp_dir=tmp-")]
        assert folder.endswith(os.environ.get("CUDA_VISIBLE_DEVICES", "all")), folder
    runpy.run_path(str(Path(__file__).with_name("fake_ck.py")))
