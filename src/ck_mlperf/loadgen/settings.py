"""The settings of a run: each declared once, and read from the environment or from a job.

CK's hooks import this module: it needs the standard library alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.suggest import suggest
from ck_mlperf.loadgen.compliance import COMPLIANCE_TESTS
from ck_mlperf.loadgen.setting_types import (
    Choice,
    Devices,
    Flag,
    Integer,
    Number,
    SettingType,
    Text,
)
from ck_mlperf.loadgen.user_conf import read_user_conf

SCENARIOS = ("SingleStream", "MultiStream", "Server", "Offline")
MODES = ("AccuracyOnly", "PerformanceOnly", "SubmissionRun", "FindPeakPerformance")
DEFAULT_BATCH_SIZE = 32
_DEFAULT_DURATION_MS = 600_000
EXPLORE_RUN = "CK_EXPLORE_RUN"
COMPLIANCE = "CK_LOADGEN_COMPLIANCE"
REHEARSAL, RATE = "rehearsal-", "rate-"
"""With which EXPLORE_RUN begins, in this order: of a rehearsal's runs; of the run that measures the
rate of a submission's Server runs, and is none of them."""


@dataclass(frozen=True)
class Variable:
    """The environment variable that gives a setting, and what the documents say about it."""

    name: str
    type: SettingType
    help: str
    default: str
    """What holds where it is not set, in words."""
    unit: str = ""
    """Empty where the value has none."""
    scenarios: tuple[str, ...] = SCENARIOS
    """Where it means something."""
    field: str = ""
    """The attribute of RunSettings that it sets."""

    @property
    def range(self) -> str:
        """The allowed values, in words."""
        return self.type.range

    @property
    def full_help(self) -> str:
        """The help, and the scenarios where it does not hold in all."""
        if self.scenarios == SCENARIOS:
            return self.help
        return f"{self.help} ({', '.join(self.scenarios)} only)"


def _setting(
    name: str, type: SettingType, help: str, value: Any = None, *, default: str = "", **more: Any
) -> Any:
    """A field of RunSettings with its variable.

    value: the default. default: in words, where `value` does not say it. more: of Variable.
    """
    default = default or ("no" if value is False else str(value))
    variable = Variable(name, type, help, default, **more)
    return dataclasses.field(default=value, metadata={"variable": variable})


@dataclass(frozen=True)
class RunSettings:
    """What the user asked for; None: not asked for. See also `resolve.ResolvedSettings`."""

    # The upper ends keep LoadGen away from sizes at which it overflows or runs out of memory.
    scenario: str = _setting(
        "CK_LOADGEN_SCENARIO", Choice(SCENARIOS), "How LoadGen sends the queries.", "SingleStream"
    )
    mode: str = _setting(
        "CK_LOADGEN_MODE",
        Choice(MODES),
        "What is measured; SubmissionRun is accuracy, then performance; FindPeakPerformance "
        "searches for the highest rate that keeps Server's latency bound.",
        "AccuracyOnly",
    )
    compliance: str | None = _setting(
        COMPLIANCE,
        Choice(COMPLIANCE_TESTS),
        "Run one of MLPerf's compliance tests: TEST01 logs some of the answers of a performance "
        "run, TEST04 repeats one image. The mode is then PerformanceOnly.",
        default="none",
    )
    multistreamness: int | None = _setting(
        "CK_LOADGEN_MULTISTREAMNESS",
        Integer(1, 65_536),
        "Samples per query in MultiStream.",
        default="8, or user.conf's samples_per_query",
        unit="samples",
        scenarios=("MultiStream",),
    )
    batch_size: int | None = _setting(
        "CK_BATCH_SIZE",
        Integer(1, 65_536),
        "The most samples that the engine gets at once: 1 in SingleStream.",
        default=f"1 in SingleStream, else {DEFAULT_BATCH_SIZE} or the most the model takes",
        unit="samples",
    )
    cuda_devices: tuple[int, ...] | str | None = _setting(
        "CK_CUDA_DEVICES",
        Devices(1023),
        "The GPUs that share the samples of a query, by CUDA's numbers; SingleStream takes one.",
        default="0",
    )
    dataset_size: int | None = _setting(
        "CK_LOADGEN_DATASET_SIZE",
        Integer(1, 100_000_000),
        "Images used: the first ones of the data set.",
        default="all images of the data set",
        unit="images",
    )
    buffer_size: int = _setting(
        "CK_LOADGEN_BUFFER_SIZE",
        Integer(1, 100_000_000),
        "The most images in memory at a time; a performance run uses no others.",
        1024,
        unit="images",
    )
    count_override: int | None = _setting(
        "CK_LOADGEN_COUNT_OVERRIDE",
        Integer(1, 1_000_000_000),
        "How many queries a performance run has at least; exactly so many unless a duration is "
        "asked for as well.",
        default="LoadGen's or user.conf's min_query_count",
        unit="queries (Offline: samples)",
    )
    conf_file: Path | None = _setting(  # noqa: RUF009 (it makes a field)
        "CK_LOADGEN_CONF_FILE",
        Text("a file", make=Path),
        "A user.conf for LoadGen; the variables take precedence over it.",
        default="user.conf beside the program",
    )
    target_qps: float | None = _setting(
        "CK_LOADGEN_TARGET_QPS",
        Number(0.001, 100_000_000),
        "The rate at which Server sends queries (in AccuracyOnly it sends as fast as it can), or "
        "the rate that Offline expects.",
        default="measured before the test (Server: half of it, FindPeakPerformance: an eighth), or "
        "user.conf's target_qps",
        unit="queries/s (Offline: samples/s)",
        scenarios=("Server", "Offline"),
    )
    target_latency_ms: float | None = _setting(
        "CK_LOADGEN_TARGET_LATENCY",
        Number(0.001, 1_000_000),
        "Server's latency bound, or the latency of a query that SingleStream and MultiStream "
        "expect.",
        default="Server 15, else measured before the test, or user.conf's target_latency",
        unit="ms",
        scenarios=("SingleStream", "MultiStream", "Server"),
    )
    duration_s: float | None = _setting(
        "CK_LOADGEN_DURATION",
        Number(0, 604_800),
        "The shortest duration of a performance run.",
        default="600, or user.conf's min_duration; 0 where a count is asked for",
        unit="s",
    )
    timeout_s: float | None = _setting(
        "CK_TIMEOUT",
        Number(0, 604_800),
        "The longest that a test may take, from opening the engine on; it then ends with an error. "
        "0: no limit.",
        default="none, but 600 s and 2 s a sample of a batch without an answer",
        unit="s",
    )
    silent: bool = _setting("CK_SILENT_MODE", Flag(), "One line for each verdict.", value=False)
    verbose: bool = _setting(
        "CK_VERBOSE", Flag(), "Print every LoadGen setting in force as well.", value=False
    )
    run: str | None = _setting(
        EXPLORE_RUN,
        Text("1 to 64 letters, digits, `.`, `_` or `-`", r"[A-Za-z0-9._-]{1,64}"),
        "The name that `ck explore loadgen` gives a run.",
        default="none",
    )
    conf: Mapping[str, int | float] = dataclasses.field(default_factory=dict)
    """The values of user.conf that apply to this scenario: {'min_duration': 10000}."""
    conf_notes: Sequence[str] = dataclasses.field(default=(), compare=False)
    """Lines of user.conf that have no effect, and why."""
    given: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)
    """Names of the variables that the user set."""

    @property
    def measures_accuracy(self) -> bool:
        """Whether the mode has an accuracy part."""
        return self.mode in ("AccuracyOnly", "SubmissionRun")


VARIABLES: tuple[Variable, ...] = tuple(
    dataclasses.replace(item.metadata["variable"], field=item.name)
    for item in dataclasses.fields(RunSettings)
    if item.metadata
)
_NAMES = tuple(variable.name for variable in VARIABLES)


def list_help() -> list[tuple[str, str]]:
    """(name, help) of each variable, for the text of a command's --help."""
    return [
        (
            variable.name,
            f"{variable.full_help} Values: {variable.range}{variable.unit and ' ' + variable.unit}."
            f" Default: {variable.default}.",
        )
        for variable in VARIABLES
    ]


def read_settings(environ: Mapping[str, str], problems: Iterable[str] = ()) -> RunSettings:
    """The settings that an environment asks for, user.conf included.

    An empty value counts as not set, a name without CK_ is no setting. problems: found elsewhere.
    Raises UserError that lists everything that is wrong.
    """
    ours = {name: environ[name].strip() for name in sorted(environ) if name.startswith("CK_")}
    return _read(ours, lambda variable, text: variable.type.parse(text), problems)


def load_settings(values: Mapping[str, Any]) -> RunSettings:
    """The settings that `dump_settings` gave, user.conf read again.

    values: by variable, typed. null counts as not set. Raises UserError as `read_settings` does.
    """
    return _read(values, lambda variable, value: variable.type.check(value))


def dump_settings(settings: RunSettings) -> dict[str, Any]:
    """What the user gave, by variable, as JSON holds it: numbers, booleans, texts and lists."""
    values = {variable.name: getattr(settings, variable.field) for variable in VARIABLES}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name in settings.given
    }


def refuse_several_devices(scenario: str, devices: int) -> None:
    """Raise UserError where `scenario` cannot use so many."""
    if devices > 1 and scenario == "SingleStream":
        raise UserError(
            f"CK_CUDA_DEVICES: {devices} GPUs, and SingleStream sends one sample at a time, which "
            "one GPU answers. Name one, or set another CK_LOADGEN_SCENARIO"
        )


def raise_problems(problems: list[str]) -> None:
    """Raise one UserError that lists the problems, if there are any."""
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError(f"{len(problems)} settings are wrong:\n  " + "\n  ".join(problems))


def _read(
    values: Mapping[str, Any],
    read: Callable[[Variable, Any], Any],
    others: Iterable[str] = (),
) -> RunSettings:
    problems = [*others]
    problems += [
        f"{name}: no such variable{suggest(name, _NAMES, cutoff=0)}"
        for name in values
        if name not in _NAMES
    ]
    fields: dict[str, Any] = {}
    given = set()
    for variable in VARIABLES:
        value = values.get(variable.name)
        if value in (None, ""):
            continue
        try:
            fields[variable.field] = read(variable, value)
            given.add(variable.name)
        except ValueError as error:
            problems.append(f"{variable.name}={value}: {error}")
    if "conf_file" in fields:
        scenario = fields.get("scenario", RunSettings.scenario)
        conf = read_user_conf(fields["conf_file"], scenario)
        fields.update(conf=conf.values, conf_notes=tuple(conf.notes))
        problems += conf.problems
    if "compliance" in fields:  # as its audit.config says
        fields.setdefault("mode", "PerformanceOnly")
    settings = RunSettings(**fields, given=frozenset(given))
    raise_problems(problems + _find_conflicts(settings))
    return settings


def _find_conflicts(settings: RunSettings) -> list[str]:
    """Values that are right each for itself and not together."""
    problems = []
    if settings.mode == "FindPeakPerformance" and settings.scenario != "Server":
        problems.append(
            f"CK_LOADGEN_MODE=FindPeakPerformance: LoadGen does that in Server only, not in "
            f"{settings.scenario}. Set CK_LOADGEN_SCENARIO=Server or another mode"
        )
    if settings.compliance and settings.mode != "PerformanceOnly":
        problems.append(
            f"CK_LOADGEN_MODE={settings.mode}: {settings.compliance} is a test of performance. "
            "Leave CK_LOADGEN_MODE or CK_LOADGEN_COMPLIANCE out"
        )
    if isinstance(settings.cuda_devices, tuple):
        try:
            refuse_several_devices(settings.scenario, len(settings.cuda_devices))
        except UserError as error:
            problems.append(str(error))
    least_s = _find_least_duration(settings)
    if settings.timeout_s and settings.timeout_s <= least_s:
        problems.append(
            f"CK_TIMEOUT={settings.timeout_s:g}: the test takes at least {least_s:g} s. Set a "
            "longer one, or a shorter CK_LOADGEN_DURATION"
        )
    batch = settings.batch_size or 1
    if batch > 1 and settings.scenario == "SingleStream":
        problems.append(
            f"CK_BATCH_SIZE={batch}: SingleStream sends one sample at a time. Leave it out, or set "
            "another CK_LOADGEN_SCENARIO"
        )
    for variable in VARIABLES:
        is_set = getattr(settings, variable.field) is not None
        if is_set and settings.scenario not in variable.scenarios:
            problems.append(
                f"{variable.name}: means nothing in {settings.scenario}, only in "
                f"{', '.join(variable.scenarios)}. Leave it out"
            )
    return problems


def _find_least_duration(settings: RunSettings) -> float:
    """In seconds: how long LoadGen's performance part takes at least."""
    if settings.mode == "AccuracyOnly":
        return 0.0
    if settings.duration_s is not None:
        return settings.duration_s
    if settings.count_override is not None:
        return 0.0
    return settings.conf.get("min_duration", _DEFAULT_DURATION_MS) / 1e3
