"""CK's hooks around a run: what they do is in ck_mlperf.catalog.program."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import program, recording, run_folder
from ck_mlperf.catalog.home import hold_home, release_home
from ck_mlperf.catalog.kernel import Catalog, hook, read_deps


@hook
def ck_preprocess(i: dict[str, Any]) -> dict[str, Any]:
    """Check the settings, resolve the model and the images, and write the job."""
    release_home()  # CK may have installed a dependency: whoever has the folder may need the home
    run_folder.enter_folder(sys.argv)
    ck, env = i["ck_kernel"], i["env"]
    recording.prepare_writes(ck)
    recording.prepare_recording(ck, sys.argv)
    environment = {name: str(env[name]) for name in env}
    deps = read_deps(i["deps"])
    with hold_home(ck):
        lines = program.prepare_run(Catalog(ck), deps, environment, sys.argv)
    return {"return": 0, "bat": lines, "extra_post_process_cmd": run_folder.KEEP_EXIT_CODE}


@hook
def ck_postprocess(i: dict[str, Any]) -> dict[str, Any]:
    """Hand the program's record to CK."""
    record = run_folder.finish_run()
    recording.hold_files(record)
    return {"return": 0, "characteristics": record}
