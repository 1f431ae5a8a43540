"""The folder that a run works in, which the `ck` process has to itself from its first hook on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.catalog.kernel import fail, read_command_line
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_json, read_text
from ck_mlperf.loadgen.job import EXIT_CODE, JOB, RECORD
from ck_mlperf.loadgen.run_folder import RUN_ID, hold_folder, remove_results

KEEP_EXIT_CODE = f"code=$?; echo $code > {EXIT_CODE}; (exit $code)"
"""Bash for the end of CK's script: CK does not tell its hooks how the program ended."""

_INTERRUPTED = 130
_BY_SIGNAL = 128  # a shell's exit code of what a signal killed, and more
# Held until this process ends, because CK stores the record after the last hook.
_held: dict[Path, contextlib.AbstractContextManager[int]] = {}


def enter_folder(arguments: Sequence[str]) -> None:
    """Go from the program's folder into the one that the run works in, and empty it of results.

    If another run is using the folder, wait for its end. CK must not make the folder itself
    (`process_in_tmp`): `ck benchmark` would first remove it, from under a run that is using it.
    arguments: the command line. Raises UserError.
    """
    options = read_command_line(arguments)
    if "generate_rnd_tmp_dir" in options:
        raise UserError("--generate_rnd_tmp_dir: this program does without; want --tmp_dir=NAME")
    folder = Path(options.get("tmp_dir") or "tmp").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in _held:  # a repetition finds it held
        lock = hold_folder(folder)
        lock.__enter__()
        _held[folder] = lock
    os.chdir(folder)
    remove_results()
    Path(JOB).unlink(missing_ok=True)
    for script in Path().glob("tmp-*.sh"):  # CK's, of a run that was killed
        script.unlink()


def finish_run() -> dict[str, Any]:
    """The record of the run that this process started; else end the command as the program ended.

    The exit code counts, however complete the record: CK stores nothing of a program that failed,
    and would exit with 0.
    """
    code = _read_exit_code()
    by_signal = code is None or (code > _BY_SIGNAL and code != _INTERRUPTED)
    if code or by_signal:
        remove_results()
    if by_signal:
        fail(
            "the program ended without a result or a message: it was killed, perhaps because "
            "memory ran out",
            code=1,
        )
    if code:  # the program has said on stderr what went wrong
        raise SystemExit(code)
    record: dict[str, Any] = read_json(Path(RECORD))
    if record["run_id"] != os.environ[RUN_ID]:
        fail(f"{Path(RECORD).absolute()} is the record of another run. Run again", code=1)
    record["execution_time"] = record["timing"]["wall_s"]
    return record


def _read_exit_code() -> int | None:
    """None: the shell was killed before it had written it, or the disk is full."""
    try:
        code = int(read_text(Path(EXIT_CODE)))
    except (FileNotFoundError, ValueError):
        return None
    # Of a shell that outlived its own `ck`, where this run's was killed.
    return code if code or Path(RECORD).exists() else None
