"""The job file: everything that a run of the program reads.

CK's hook writes it (it imports this module, which needs the standard library alone). A job can also
be written by hand, and repeated without CK: `python run.py job.json`. examples/job.json is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_json
from ck_mlperf.loadgen.engines import ENGINES
from ck_mlperf.loadgen.settings import RunSettings, dump_settings, load_settings


@dataclass(frozen=True)
class Job:
    """One LoadGen test. Each attribute is a key of the file's JSON object.

    A relative path is relative to the folder that the program runs in.
    """

    settings: RunSettings
    """{"CK_LOADGEN_SCENARIO": "Offline", "CK_BATCH_SIZE": 32, "CK_SILENT_MODE": true}: what the
    user gave, by variable (docs/settings.md). The others have their defaults."""
    model: Path
    """The ONNX file or the plan."""
    sha256: str
    """Of that file; where it has external data, `model_file.hash_model` of all its files. What has
    changed since is refused."""
    recipe: Mapping[str, Any]
    """The model's recipe, as `python -m ck_mlperf.models.recipe MODEL.onnx` prints it."""
    images: Path
    """The folder that `python -m ck_mlperf.images.preprocess` made."""
    engine: str = "onnx"
    """A kind of engine: a name in ck_mlperf.loadgen.engines.ENGINES."""
    external_files: Sequence[str] = ()
    """The files with the ONNX file's external data, relative to its folder."""
    loadgen_native: Path | None = None
    """The library of LoadGen's C++ interface; null: LoadGen's Python module is used."""
    passed: Mapping[str, str] = field(default_factory=dict)
    """Other variables that the user gave, for the record: {"CUDA_VISIBLE_DEVICES": "0"}. What
    starts the program sets them."""
    deps: Sequence[Mapping[str, Any]] = ()
    """What CK resolved, for the record: {key, tags, version, uoa} of each."""
    run_id: str | None = None
    """Random; the record repeats it. CK takes no other record for this run's."""
    ck: Mapping[str, int] = field(default_factory=dict)
    """CK's process, {"pid": ..., "started": ...}: the run that it has started ends with it.
    started: `ck_mlperf.common.processes.read_start`."""

    def to_json(self) -> str:
        """The content of the file."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["settings"] = dump_settings(self.settings)
        return json.dumps(values, indent=2, default=str) + "\n"


PROGRAM = "image-classification-tensorrt-loadgen-py"
"""The CK program that runs jobs."""
JOB, RECORD, REPORT = "job.json", "record.json", "report.txt"
"""CK's job, and what a run leaves beside LoadGen's logs; after an error it leaves nothing."""
EXIT_CODE = "exit_code.txt"
"""How the program ended, which CK does not tell its hooks: its script writes this file."""
UNFINISHED = ".loadgen-unfinished-"
"""How the name of the folder begins that LoadGen writes its logs into during a test."""
ACCURACY_LOG = "mlperf_log_accuracy.json"
DETAIL_LOG = "mlperf_log_detail.txt"
SUMMARY_LOG = "mlperf_log_summary.txt"
LOG_NAMES = (ACCURACY_LOG, DETAIL_LOG, SUMMARY_LOG)
"""LoadGen's logs."""
USER_CONF = "mlperf_log_user.conf"
"""The user.conf in force, beside the logs and named so that it is removed with them."""
NOT_RECORDED = "(not recorded)"
"""In `Job.passed`: in place of a value that its name says is secret."""

_PATHS = ("model", "images", "loadgen_native")
_TYPES = {item.name: str for item in fields(Job)} | dict(
    settings=dict, recipe=dict, passed=dict, deps=list, external_files=list, ck=dict
)
_TYPE_NAMES = {dict: "an object", list: "a list", str: "text"}
_REQUIRED = tuple(
    item.name for item in fields(Job) if item.default is item.default_factory is MISSING
)


def read_job(path: Path) -> Job:
    """The job in a file. Raises UserError that says what is wrong with it; OSError."""
    try:
        values = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: want a JSON object")
    values = {key: value for key, value in values.items() if value is not None}
    problems = [f"{key}: no such key" for key in values if key not in _TYPES]
    problems += [f"{key}: missing" for key in _REQUIRED if key not in values]
    problems += [
        f"{key}: want {_TYPE_NAMES[type_]}"
        for key, type_ in _TYPES.items()
        if not isinstance(values.get(key, type_()), type_)
    ]
    if str(values.get("engine", Job.engine)) not in ENGINES:
        problems.append(f"engine: want one of {', '.join(ENGINES)}")
    if problems:
        raise UserError(
            f"{path}: {'; '.join(problems)}. `ck run` writes a new job; src/ck_mlperf/loadgen/"
            "job.py says what belongs into one"
        )
    try:
        values["settings"] = load_settings(values["settings"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    values |= {key: Path(values[key]) for key in _PATHS if key in values}
    return Job(**values)
