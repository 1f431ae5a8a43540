"""The CK_LOADGEN_ environment as one checked object."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.user_conf import read_user_conf
from ck_mlperf.machine.environment import list_cuda_devices

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
MODES = ("AccuracyOnly", "PerformanceOnly", "SubmissionRun", "FindPeakPerformance")
DEFAULT_BATCH_SIZE = 32
ALL_DEVICES = "all"
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Kinds of engines, as in ENGINES, that run on no GPU; the null engine stands in for any.
_WITHOUT_DEVICES = ("onnx",)
_WITHOUT_GPU = ("null",)


@dataclass(frozen=True)
class Variable:
    """One environment variable: how it is read, and what the README's table says of it."""

    name: str
    field: str
    """The attribute of RunSettings that it sets."""
    type: str
    """choice, integer, number, flag, file, devices or label."""
    default: str
    """What holds where it is not set."""
    help: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = math.inf
    scenarios: tuple[str, ...] = SCENARIOS
    """Where it means something."""

    @property
    def range(self) -> str:
        """The values it takes, in words."""
        if self.choices:
            return ", ".join(self.choices)
        if self.type in ("integer", "number"):
            return f"{self.low:g} to {int(self.high):,}"
        if self.type == "devices":
            return f"{ALL_DEVICES}, or numbers from {self.low:g} to {int(self.high):,}: 0,1"
        return {
            "flag": "yes, no",
            "file": "a file",
            "label": "1 to 64 letters, digits, `.`, `_` or `-`",
        }[self.type]


# The upper ends keep LoadGen out of the sizes at which it overflows or runs out of memory.
VARIABLES = (
    Variable(
        "CK_LOADGEN_SCENARIO",
        "scenario",
        "choice",
        "SingleStream",
        "How LoadGen sends the queries.",
        choices=SCENARIOS,
    ),
    Variable(
        "CK_LOADGEN_MODE",
        "mode",
        "choice",
        "AccuracyOnly",
        "What is measured; SubmissionRun is accuracy, then performance; FindPeakPerformance "
        "searches the highest rate that keeps Server's latency bound.",
        choices=MODES,
    ),
    Variable(
        "CK_LOADGEN_MULTISTREAMNESS",
        "multistreamness",
        "integer",
        "8, or user.conf's samples_per_query",
        "Samples per query in MultiStream.",
        low=1,
        high=65_536,
        scenarios=("MultiStream",),
    ),
    Variable(
        "CK_BATCH_SIZE",
        "batch_size",
        "integer",
        f"1 in SingleStream, else {DEFAULT_BATCH_SIZE} or the most the model takes",
        "The most samples that the engine gets at once.",
        low=1,
        high=65_536,
    ),
    Variable(
        "CK_CUDA_DEVICES",
        "cuda_devices",
        "devices",
        "0",
        "The GPUs that share the samples of a query, by CUDA's numbers; SingleStream takes one.",
        high=1023,
    ),
    Variable(
        "CK_LOADGEN_DATASET_SIZE",
        "dataset_size",
        "integer",
        "all images of the data set",
        "Images used, the first ones of the data set.",
        low=1,
        high=100_000_000,
    ),
    Variable(
        "CK_LOADGEN_BUFFER_SIZE",
        "buffer_size",
        "integer",
        "1024",
        "The most images in memory at a time; a performance run uses no others.",
        low=1,
        high=100_000_000,
    ),
    Variable(
        "CK_LOADGEN_COUNT_OVERRIDE",
        "count_override",
        "integer",
        "LoadGen's or user.conf's min_query_count",
        "Queries (Offline: samples) of a performance run; unless a duration is asked for as well, "
        "exactly so many.",
        low=1,
        high=1_000_000_000,
    ),
    Variable(
        "CK_LOADGEN_CONF_FILE",
        "conf_file",
        "file",
        "user.conf beside the program",
        "A user.conf for LoadGen; the variables go before it.",
    ),
    Variable(
        "CK_LOADGEN_TARGET_QPS",
        "target_qps",
        "number",
        "measured before the test (Server: half of it), or user.conf's target_qps",
        "Queries per second that Server sends (in AccuracyOnly it sends as fast as it can), or "
        "samples per second that Offline expects.",
        low=0.001,
        high=100_000_000,
        scenarios=("Server", "Offline"),
    ),
    Variable(
        "CK_LOADGEN_TARGET_LATENCY",
        "target_latency_ms",
        "number",
        "Server 15, else measured before the test, or user.conf's target_latency",
        "Milliseconds: Server's bound, the latency that SingleStream and MultiStream expect.",
        low=0.001,
        high=1_000_000,
        scenarios=("SingleStream", "MultiStream", "Server"),
    ),
    Variable(
        "CK_LOADGEN_DURATION",
        "duration_s",
        "number",
        "600, or user.conf's min_duration; 0 where a count is asked for",
        "The shortest duration of a performance run in seconds.",
        low=0,
        high=604_800,
    ),
    Variable("CK_SILENT_MODE", "silent", "flag", "no", "One line for each verdict."),
    Variable("CK_VERBOSE", "verbose", "flag", "no", "Print every LoadGen setting in force, too."),
    Variable("CK_EXPLORE_RUN", "run", "label", "none", "What `ck explore loadgen` names a run by."),
)


@dataclass(frozen=True)
class RunSettings:
    """What the user asked for; None: not asked for, see `VARIABLES` for what then holds."""

    scenario: str = "SingleStream"
    """SingleStream, MultiStream, Server or Offline."""
    mode: str = "AccuracyOnly"
    """AccuracyOnly, PerformanceOnly, SubmissionRun or FindPeakPerformance."""
    multistreamness: int | None = None
    """Samples per query in MultiStream."""
    batch_size: int | None = None
    """The most samples handed to the engine at once; a number once resolved."""
    cuda_devices: tuple[int, ...] | str | None = None
    """CUDA's numbers of the GPUs, none twice, or 'all'; see `resolve_devices`."""
    dataset_size: int | None = None
    """Images used, the first ones of the set; a number once resolved."""
    buffer_size: int = 1024
    """The most images loaded at a time; at most dataset_size once resolved."""
    count_override: int | None = None
    """Queries to issue at least; in Offline, samples."""
    target_qps: float | None = None
    """Server: arrival rate in queries/s; Offline: expected rate in samples/s."""
    target_latency_ms: float | None = None
    """Server: latency bound; SingleStream, MultiStream: expected latency of a query."""
    duration_s: float | None = None
    """Shortest duration of a performance test."""
    conf_file: Path | None = None
    """user.conf."""
    conf: Mapping[str, int | float] = field(default_factory=dict)
    """The values of user.conf that apply to this scenario: {'min_duration': 10000}."""
    silent: bool = False
    verbose: bool = False
    run: str | None = None
    """What `ck explore loadgen` names the run by."""


def read_settings(environ: Mapping[str, str]) -> RunSettings:
    """The settings that `environ` asks for, user.conf included.

    An empty value is none. Raises UserError that lists everything that is wrong.
    """
    problems = _find_unknown(environ)
    values: dict[str, Any] = {}
    for variable in VARIABLES:
        text = environ.get(variable.name, "").strip()
        if not text:
            continue
        try:
            values[variable.field] = _parse(variable, text)
        except ValueError as error:
            problems.append(f"{variable.name}={text}: {error}")
    scenario = values.get("scenario", RunSettings.scenario)
    if "conf_file" in values:
        values["conf"], conf_problems = read_user_conf(values["conf_file"], scenario)
        problems += conf_problems
    problems += _find_conflicts(RunSettings(**values))
    _raise_problems(problems)
    return RunSettings(**values)


def validate_against(
    settings: RunSettings, available_images: int, engine_max_batch: int | None
) -> list[str]:
    """What `settings` ask for and this data set or engine cannot give; nothing loaded for it."""
    problems = []
    if settings.dataset_size is not None and settings.dataset_size > available_images:
        problems.append(
            f"CK_LOADGEN_DATASET_SIZE={settings.dataset_size}: the data set has {available_images} "
            "images. Lower it, or install a larger set"
        )
    if (
        settings.batch_size is not None
        and engine_max_batch is not None
        and settings.batch_size > engine_max_batch
    ):
        problems.append(
            f"CK_BATCH_SIZE={settings.batch_size}: the model takes at most {engine_max_batch} "
            "images at once. Lower it, or choose a model made for larger batches"
        )
    loaded = min(settings.buffer_size, settings.dataset_size or available_images)
    same_index = settings.conf.get("performance_issue_same_index", 0)
    if same_index >= loaded:
        problems.append(
            f"{settings.conf_file}: performance_issue_same_index = {same_index}: only {loaded} "
            "images are loaded. Want a smaller index"
        )
    return problems


def resolve_settings(
    settings: RunSettings, available_images: int, engine_max_batch: int | None
) -> RunSettings:
    """`settings` with numbers for dataset_size, batch_size and buffer_size.

    Raises UserError where `validate_against` has something to say.
    """
    _raise_problems(validate_against(settings, available_images, engine_max_batch))
    dataset_size = settings.dataset_size or available_images
    largest = min(engine_max_batch or DEFAULT_BATCH_SIZE, DEFAULT_BATCH_SIZE)
    batch_size = settings.batch_size or (1 if settings.scenario == "SingleStream" else largest)
    return replace(
        settings,
        dataset_size=dataset_size,
        batch_size=batch_size,
        buffer_size=min(settings.buffer_size, dataset_size),
    )


def resolve_devices(settings: RunSettings, kind: str) -> tuple[int, ...]:
    """CUDA's numbers of the devices to run on, an engine of `kind` (as in ENGINES) for each.

    (0,) where none were asked for, on the CPU too. Raises UserError where the engine has none, the
    machine has not those, or the scenario takes one.
    """
    wanted = settings.cuda_devices
    if wanted is None:
        return (0,)
    if kind in _WITHOUT_DEVICES:
        raise UserError(
            f"CK_CUDA_DEVICES={_format_devices(wanted)}: this model runs on the CPU. Leave it out, "
            "or choose a model for GPUs"
        )
    if isinstance(wanted, str):
        devices = list_cuda_devices()
    else:
        devices = wanted
        missing = [] if kind in _WITHOUT_GPU else sorted({*devices} - {*list_cuda_devices()})
        if missing:
            raise UserError(
                f"CK_CUDA_DEVICES={_format_devices(wanted)}: no GPU {_format_devices(missing)} "
                f"here, only {_format_devices(list_cuda_devices())}. (CUDA_VISIBLE_DEVICES hides "
                "some and numbers the others anew)"
            )
    refuse_several_devices(settings.scenario, len(devices))
    return devices


def refuse_several_devices(scenario: str, devices: int) -> None:
    """Raise UserError where `scenario` cannot use so many."""
    if devices > 1 and scenario == "SingleStream":
        raise UserError(
            f"CK_CUDA_DEVICES: {devices} GPUs, and SingleStream sends one sample at a time, which "
            "one GPU answers. Name one, or set another CK_LOADGEN_SCENARIO"
        )


def _parse(variable: Variable, text: str) -> Any:
    """The value of `text`; ValueError says what is wanted instead."""
    if variable.type == "choice":
        if text not in variable.choices:
            near = difflib.get_close_matches(text, variable.choices, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"want one of {variable.range}{hint}")
        return text
    if variable.type == "flag":
        # CK hands over a bare `--env.NAME` as 'yes'.
        known = {"yes": True, "1": True, "true": True, "on": True}
        known |= {"no": False, "0": False, "false": False, "off": False}
        if text.lower() not in known:
            raise ValueError("want yes or no")
        return known[text.lower()]
    if variable.type == "file":
        return Path(text)
    if variable.type == "devices":
        return _parse_devices(text, f"want {variable.range}", int(variable.high))
    if variable.type == "label":
        if not _LABEL.fullmatch(text):
            raise ValueError(f"want {variable.range}")
        return text
    wanted = f"want {'a whole number' if variable.type == 'integer' else 'a number'}, "
    wanted += variable.range
    try:
        value = int(text) if variable.type == "integer" else float(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not variable.low <= value <= variable.high:  # not a number is in no range
        raise ValueError(wanted)
    return value


def _parse_devices(text: str, wanted: str, high: int) -> tuple[int, ...] | str:
    if text == ALL_DEVICES:
        return text
    devices: list[int] = []
    for part in map(str.strip, text.split(",")):
        if not (part.isascii() and part.isdecimal() and len(part) < 9 and int(part) <= high):
            raise ValueError(wanted)
        if int(part) in devices:
            raise ValueError(f"GPU {int(part)} is there twice")
        devices.append(int(part))
    return tuple(devices)


def _format_devices(devices: Iterable[int] | str) -> str:
    return devices if isinstance(devices, str) else ",".join(map(str, devices))


def _find_unknown(environ: Mapping[str, str]) -> list[str]:
    names = [variable.name for variable in VARIABLES]
    problems = []
    for name in sorted(environ):
        if name.startswith("CK_LOADGEN_") and name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
            problems.append(f"{name}: no such variable; did you mean {near}?")
    return problems


def _find_conflicts(settings: RunSettings) -> list[str]:
    """Values that are right each for itself and not together."""
    problems = []
    if settings.mode == "FindPeakPerformance" and settings.scenario != "Server":
        problems.append(
            f"CK_LOADGEN_MODE=FindPeakPerformance: LoadGen does that in Server only, not in "
            f"{settings.scenario}. Set CK_LOADGEN_SCENARIO=Server or another mode"
        )
    if isinstance(settings.cuda_devices, tuple):
        try:
            refuse_several_devices(settings.scenario, len(settings.cuda_devices))
        except UserError as error:
            problems.append(str(error))
    for variable in VARIABLES:
        is_set = getattr(settings, variable.field) is not None
        if is_set and settings.scenario not in variable.scenarios:
            problems.append(
                f"{variable.name}: means nothing in {settings.scenario}, only in "
                f"{', '.join(variable.scenarios)}. Leave it out"
            )
    return problems


def _raise_problems(problems: list[str]) -> None:
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError(f"{len(problems)} settings are wrong:\n  " + "\n  ".join(problems))
