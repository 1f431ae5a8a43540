"""CK's hooks around a run: what they do is in ck_mlperf.catalog.program."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src"))
from ck_mlperf.catalog import program, recording, run_folder
from ck_mlperf.catalog.home import hold_home
from ck_mlperf.catalog.kernel import Catalog, hook, read_deps


@hook
def ck_preprocess(i: dict[str, Any]) -> dict[str, Any]:
    """Check the settings, resolve the model and the images, and write the job."""
    run_folder.enter_folder(sys.argv)
    ck, env = i["ck_kernel"], i["env"]
    recording.prepare_writes(ck)
    recording.prepare_recording(ck, sys.argv)
    environment = {name: str(env[name]) for name in env}
    catalog, deps = Catalog(ck), read_deps(i["deps"])
    with hold_home(ck):  # after the folder's lock: who has the folder may wait for the home
        lines = program.resolve_base(catalog, deps)
        lines += program.prepare_run(catalog, deps, environment, sys.argv)
    return {"return": 0, "bat": lines, "extra_post_process_cmd": run_folder.KEEP_EXIT_CODE}


@hook
def ck_postprocess(i: dict[str, Any]) -> dict[str, Any]:
    """Hand the program's record to CK."""
    record = run_folder.finish_run()
    recording.hold_files(record)
    return {"return": 0, "characteristics": record}
