"""The folder that a run works in: one run at a time, whose results are told from any other's.

CK's process holds the folder from its first hook until it has stored the record; a run without CK
holds it itself. Needs the standard library alone, because CK's hooks import it.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path

from ck_mlperf.common.locks import hold_lock
from ck_mlperf.loadgen.job import EXIT_CODE, RECORD, REPORT, UNFINISHED

LOCK = ".run.lock"
RUN_ID = "CK_MLPERF_RUN_ID"
"""The variable by which CK's process tells the program which run it has started."""


def hold_folder(folder: Path) -> contextlib.AbstractContextManager[int]:
    """Have the folder to oneself; if another run has it, say so on stderr and wait."""

    def announce_wait(holder: str) -> None:
        print(
            f"waiting: a run (process {holder}) is using {folder.absolute()}. `ck` runs another "
            "one beside it with --tmp_dir=NAME",
            file=sys.stderr,
            flush=True,
        )

    return hold_lock(folder / LOCK, announce_wait)


def remove_results() -> None:
    """Remove from the current folder what a run leaves, a killed one too; the job stays."""
    for path in Path().iterdir():
        name = path.name
        if name.startswith(UNFINISHED):
            shutil.rmtree(path)
        elif name in (RECORD, REPORT, EXIT_CODE) or name.startswith("mlperf_log_"):
            path.unlink()
