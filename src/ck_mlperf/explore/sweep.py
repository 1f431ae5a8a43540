"""A sweep: which configurations, how often, under which settings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.catalog.request import read_request
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.common.shell import is_plain
from ck_mlperf.common.tags import split_tags
from ck_mlperf.explore.options import (
    ENTRY_NAME,
    UID,
    list_options,
    merge_file,
    one,
    option,
    read_integers,
    read_models,
    read_options,
    read_rates,
    read_weights,
    read_word,
    several,
    to_text,
)
from ck_mlperf.explore.runs import (
    ACCURACY,
    PERFORMANCE,
    Configuration,
    Network,
    ScheduledRun,
    schedule_run,
)
from ck_mlperf.loadgen.engines.registry import ENGINES
from ck_mlperf.loadgen.job import PROGRAM
from ck_mlperf.loadgen.setting_types import Choice, Flag, Integer
from ck_mlperf.loadgen.settings import (
    COMPLIANCE,
    DEFAULT_BATCH_SIZE,
    EXPLORE_RUN,
    SCENARIOS,
    raise_problems,
    read_settings,
)
from ck_mlperf.models.precisions import PRECISIONS

if TYPE_CHECKING:
    from rich.console import Console

    from ck_mlperf.explore.entry import Entry
    from ck_mlperf.explore.measure import Measurer
    from ck_mlperf.explore.runs import Outcome

MAX_RUNS = 10_000

# Variables that an option sets; the others are passed through from --env.NAME=VALUE.
OPTION_OF = {
    "CK_LOADGEN_SCENARIO": "--scenario=",
    "CK_LOADGEN_MODE": "--accuracy=yes|no",
    "CK_LOADGEN_MULTISTREAMNESS": "--samples_per_query=",
    "CK_BATCH_SIZE": "--batch=",
    "CK_LOADGEN_TARGET_QPS": "--qps=",
    "CK_LOADGEN_COUNT_OVERRIDE": "--count=",
    "CK_LOADGEN_DURATION": "--duration=",
    COMPLIANCE: "--submission=",
    EXPLORE_RUN: "nothing: a sweep names its runs itself",
}
CONF_FILE = "CK_LOADGEN_CONF_FILE"

# The kinds of engines that a run can ask for by tags.
_ENGINES = tuple(kind for kind, engine in ENGINES.items() if engine.model)


@dataclass(frozen=True)
class Sweep:
    """What a sweep measures. Each combination that has a meaning is a configuration."""

    scenario: tuple[str, ...] = option(
        "NAME,...", ", ".join(SCENARIOS), several(Choice(SCENARIOS)), ("SingleStream",)
    )
    batch: tuple[int, ...] = option(
        "N,...",
        "the most samples that the engine gets at once: 1,2,3 or 1..8 or 8..32:8 or 1..64:x2 or "
        "1,2,4..64",
        read_integers,
        (),
        default=f"{DEFAULT_BATCH_SIZE}, in SingleStream 1",
    )
    samples_per_query: tuple[int, ...] = option(
        "N,...", "MultiStream only", read_integers, (), default="the batch"
    )
    qps: tuple[float, ...] = option(
        "RATE,...",
        "queries per second that are sent, Server only",
        read_rates,
        (),
        default="half of what is measured before the test",
    )
    model: tuple[str, ...] = option(
        "TAGS,...",
        "tags of models, several of one model joined with +: digits,resnet50+random",
        read_models,
        ("digits",),
    )
    precision: tuple[str, ...] = option(
        "NAME,...",
        ", ".join(PRECISIONS),
        several(Choice(PRECISIONS)),
        (),
        default="as the model's file is",
    )
    engine: tuple[str, ...] = option(
        "NAME,...", ", ".join(_ENGINES), several(Choice(_ENGINES)), ("onnx",)
    )
    weights: tuple[str, ...] = option(
        "TAG,...",
        "all tags of the model to run, in place of --model, --precision and --engine",
        read_weights,
        (),
    )
    repetitions: int = option(
        "N",
        "performance runs of each configuration; in a search, how often a load is VALID before it "
        "is the answer",
        one(Integer(1, 1000)),
        3,
        default="3; a search in SingleStream: 6",
    )
    accuracy: bool = option(
        "yes|no",
        "whether each file that is run has its accuracy measured, once; random weights have none",
        one(Flag()),
        True,
        default="yes",
    )
    count: str | None = option(
        "N", "CK_LOADGEN_COUNT_OVERRIDE of performance runs", read_word, None
    )
    duration: str | None = option(
        "SECONDS",
        "CK_LOADGEN_DURATION of performance runs",
        read_word,
        None,
        default="user.conf's, 10",
    )
    images: str | None = option(
        "UID",
        "CK's UID of the images to run on, or of their originals (`ck show env`)",
        one(UID),
        None,
        default="those that fit the model; several that do are an error",
    )
    program: str = option("NAME", "the CK program", one(ENTRY_NAME), PROGRAM)
    name: str = option(
        "NAME",
        "of the experiment",
        one(ENTRY_NAME),
        "",
        default="explore.MODEL, or find.MODEL.SCENARIO",
    )
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for all runs."""

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the experiment."""
        return ("explore", "loadgen")

    @property
    def prefix(self) -> str:
        """What the ids of its runs begin with."""
        return ""

    @property
    def networks(self) -> tuple[Network, ...]:
        """What the options for models ask for, in their order."""
        if self.weights:
            return tuple(Network(weights=tags) for tags in self.weights)
        axes = itertools.product(self.model, self.precision or (None,), self.engine)
        return tuple(itertools.starmap(Network, axes))

    def define(self) -> dict[str, Any]:
        """What makes it a different sweep where it differs; plain JSON."""
        definition = asdict(self)
        for key in ("name", "model", "precision", "engine", "weights"):
            del definition[key]
        if self.images is None:  # as before there was this option
            del definition["images"]
        definition["network"] = [str(network) for network in self.networks]
        if CONF_FILE in self.env:
            definition["conf_file_sha256"] = hash_file(Path(self.env[CONF_FILE]))
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in definition.items()
        }

    def list_configurations(self) -> list[Configuration]:
        """The configurations. SingleStream has one sample per query, so only batch 1."""
        return list(self._make_configurations())

    def _make_configurations(self) -> Iterator[Configuration]:
        for network, scenario in itertools.product(self.networks, self.scenario):
            batches = self.batch or (DEFAULT_BATCH_SIZE,)
            for batch in (1,) if scenario == "SingleStream" else batches:
                if scenario == "MultiStream":
                    for samples in self.samples_per_query or (batch,):
                        yield Configuration(network, scenario, batch, samples_per_query=samples)
                elif scenario == "Server":
                    for qps in self.qps or (None,):
                        yield Configuration(network, scenario, batch, target_qps=qps)
                else:
                    yield Configuration(network, scenario, batch)

    def list_notes(self) -> list[str]:
        """What may surprise a reader of the schedule."""
        notes = []
        if "SingleStream" in self.scenario and any(batch != 1 for batch in self.batch):
            notes.append("SingleStream sends one sample at a time: it has batch 1 only")
        if not self.accuracy:
            notes.append("no accuracy is measured")
        elif not all(network.has_accuracy for network in self.networks):
            notes.append("random weights have no accuracy")
        return notes

    def list_runs(self) -> list[ScheduledRun]:
        """All runs in order: the accuracy of each file, then the configurations, repeatedly.

        The repetitions of a configuration are apart, so that a machine that drifts shows as their
        spread.
        """
        configurations = self.list_configurations()
        runs = []
        if self.accuracy:
            largest: dict[str, Configuration] = {}
            for one in configurations:
                known = largest.get(one.weights)
                if one.network.has_accuracy and (known is None or one.batch > known.batch):
                    largest[one.weights] = one
            runs += [self.schedule(one, 1, ACCURACY) for one in largest.values()]
        for repetition in range(1, self.repetitions + 1):
            runs += [self.schedule(one, repetition) for one in configurations]
        return runs

    def take_up(self, entry: Entry, retry_failed: bool) -> Sweep:
        """The sweep as its entry's records make it."""
        return self

    def prepare(self, console: Console, measurer: Measurer) -> None:
        """Find what the runs depend on, for `take_up`. Raises UserError."""

    def remark(self, outcome: Outcome) -> Sequence[str]:
        """What else to say of an outcome."""
        return ()

    def report(self, console: Console, entry: Entry) -> bool:
        """Print what else to say at the end. Returns whether all is well."""
        return True

    def schedule(
        self, configuration: Configuration, repetition: int, mode: str = PERFORMANCE
    ) -> ScheduledRun:
        """A run of the sweep's program under its settings."""
        environment = dict(self.env)
        if mode == PERFORMANCE:
            if self.count is not None:
                environment["CK_LOADGEN_COUNT_OVERRIDE"] = self.count
            if self.duration is not None:
                environment["CK_LOADGEN_DURATION"] = self.duration
        return schedule_run(
            configuration,
            repetition,
            mode,
            self.program,
            environment,
            self.name,
            self.tags,
            self.prefix,
            self.images,
        )


SWEEP_OPTIONS = list_options(Sweep)


def read_sweep(given: Mapping[str, Any]) -> Sweep:
    """The sweep that options ask for: `batch`, `env.CK_...` and so on, as in a file.

    A `file` among them is read; the other options take precedence over it. Raises UserError that
    lists everything that is wrong, also what the program would refuse.
    """
    given = merge_file(given)
    values, problems = read_options(given, SWEEP_OPTIONS)
    sweep = Sweep(**values, env=_read_environment(given, problems))
    extra = [key for key in ("model", "precision", "engine") if key in given]
    if "weights" in given and extra:
        problems.append(f"weights: holds all tags itself; leave out {', '.join(extra)}")
    if sweep.qps and "Server" not in sweep.scenario:
        problems.append("qps: means something in Server only; add it to --scenario=")
    if sweep.samples_per_query and "MultiStream" not in sweep.scenario:
        problems.append("samples_per_query: means something in MultiStream only")
    raise_problems(problems or _find_problems(sweep))
    return sweep if sweep.name else replace(sweep, name=_derive_name(sweep.networks))


def _find_problems(sweep: Sweep) -> list[str]:
    """What the program would refuse, each thing once."""
    # No more are made than are allowed: axes multiply.
    count = len(list(itertools.islice(sweep._make_configurations(), MAX_RUNS + 1)))
    if count * sweep.repetitions > MAX_RUNS:
        return [f"more than {MAX_RUNS:,} runs: take fewer values or repetitions"]
    problems: list[str] = []
    for network in sweep.networks:
        try:
            read_request(split_tags(network.tags(1)))
        except UserError as error:
            problems.append(str(error))
    for run in sweep.list_runs():
        if run.repetition == 1:
            try:
                read_settings(run.environment)
            except UserError as error:
                several = str(error).split("\n  ")  # after a line that says how many
                problems += several[1:] or several
    return list(dict.fromkeys(problems))


def _read_environment(given: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    environment = {}
    for key in sorted(given):
        if not key.startswith("env."):
            continue
        name = key.removeprefix("env.")
        try:
            value = to_text(given[key])
        except UserError as error:
            problems.append(f"{key}: {error}")
            continue
        if name in OPTION_OF:
            problems.append(f"{key}: that is for {OPTION_OF[name]}")
        elif not re.fullmatch(r"CK_[A-Z0-9_]{1,60}", name):
            problems.append(f"{key}: want a variable of the program, CK_...")
        elif not is_plain(value):
            problems.append(f"{key}: '{value}' has a character that a shell reads")
        elif name == CONF_FILE:
            path = Path(value).absolute()  # the program runs in a folder of its own
            if not path.is_file():
                problems.append(f"{key}: there is no file {path}")
            environment[name] = str(path)
        else:
            environment[name] = value
    return environment


def _derive_name(networks: Sequence[Network]) -> str:
    models = dict.fromkeys(network.weights or network.model for network in networks)
    return "explore." + ".".join(model.replace(",", "-") for model in models)[:90]
