"""A sweep: which points, how often, under which settings; from the command line or a YAML file."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.explore.axes import parse_axis
from ck_mlperf.explore.runs import (
    ACCURACY,
    EXPLORE_RUN,
    PERFORMANCE,
    Network,
    PlannedRun,
    Point,
    plan_run,
)
from ck_mlperf.loadgen.settings import DEFAULT_BATCH_SIZE, SCENARIOS, read_settings

DEFAULT_PROGRAM = "image-classification-tensorrt-loadgen-py"
DEFAULT_REPETITIONS = 3
PRECISIONS = ("fp32", "tf32", "fp16", "int8")
ENGINES = ("onnx", "onnx-cuda", "tensorrt")
MAX_RUNS = 10_000
TAGS = ("explore", "loadgen")

# Variables that an option sets; the rest is passed through from --env.NAME=VALUE.
OPTION_OF = {
    "CK_LOADGEN_SCENARIO": "--scenario=",
    "CK_LOADGEN_MODE": "--accuracy=yes|no",
    "CK_LOADGEN_MULTISTREAMNESS": "--samples_per_query=",
    "CK_BATCH_SIZE": "--batch=",
    "CK_LOADGEN_TARGET_QPS": "--qps=",
    "CK_LOADGEN_COUNT_OVERRIDE": "--count=",
    "CK_LOADGEN_DURATION": "--duration=",
    EXPLORE_RUN: "nothing: a sweep names its runs itself",
}
CONF_FILE = "CK_LOADGEN_CONF_FILE"

_NETWORK_OPTIONS = ("model", "precision", "engine")
_OPTIONS = (
    *("program", "scenario", "batch", "samples_per_query", "qps", *_NETWORK_OPTIONS, "weights"),
    *("repetitions", "count", "duration", "accuracy", "name"),
)
_TAG = re.compile(r"[\w.+-]+(?:,[\w.+-]+)*", re.ASCII)
# A name that is a folder's and that CK takes.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,99}")
# CK writes values into a bash script, in double quotes at most.
_PLAIN = re.compile(r"[\w./:,=+@%~ -]*")


@dataclass(frozen=True)
class Sweep:
    """What a sweep measures. Each combination that means something is a point."""

    program: str = DEFAULT_PROGRAM
    scenario: tuple[str, ...] = ("SingleStream",)
    batch: tuple[int, ...] = ()
    """The most samples that the engine gets at once. Empty: 32, and 1 in SingleStream."""
    samples_per_query: tuple[int, ...] = ()
    """MultiStream only. Empty: as many as the batch."""
    qps: tuple[float, ...] = ()
    """Server only: queries/s. Empty: half of what is measured before the test."""
    network: tuple[Network, ...] = (Network(),)
    repetitions: int = DEFAULT_REPETITIONS
    """Performance runs of each point."""
    accuracy: bool = True
    """Whether each file that is run, except of random weights, has its accuracy measured, once."""
    count: str | None = None
    """CK_LOADGEN_COUNT_OVERRIDE of performance runs."""
    duration: str | None = None
    """CK_LOADGEN_DURATION of performance runs, in seconds."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for all runs."""
    name: str = ""
    """The experiment entry."""

    def define(self) -> dict[str, Any]:
        """What makes the sweep another one where it differs; plain JSON."""
        definition = asdict(self)
        del definition["name"]
        definition["network"] = [str(network) for network in self.network]
        if CONF_FILE in self.env:
            definition["conf_file_sha256"] = hash_file(Path(self.env[CONF_FILE]))
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in definition.items()
        }

    def list_points(self) -> list[Point]:
        """The points. SingleStream has one sample a query: batch 1 only."""
        return list(self._make_points())

    def _make_points(self) -> Iterator[Point]:
        for network, scenario in itertools.product(self.network, self.scenario):
            batches = self.batch or (DEFAULT_BATCH_SIZE,)
            for batch in (1,) if scenario == "SingleStream" else batches:
                if scenario == "MultiStream":
                    for samples in self.samples_per_query or (batch,):
                        yield Point(network, scenario, batch, samples_per_query=samples)
                elif scenario == "Server":
                    for qps in self.qps or (None,):
                        yield Point(network, scenario, batch, target_qps=qps)
                else:
                    yield Point(network, scenario, batch)

    def list_notes(self) -> list[str]:
        """What a reader of the plan might not expect."""
        notes = []
        if "SingleStream" in self.scenario and any(batch != 1 for batch in self.batch):
            notes.append("SingleStream sends one sample at a time: it has batch 1 only")
        if not self.accuracy:
            notes.append("no accuracy is measured")
        elif not all(network.has_accuracy for network in self.network):
            notes.append("random weights have no accuracy")
        return notes

    def list_runs(self) -> list[PlannedRun]:
        """All runs in their order: accuracy of each file, then the points, again and again.

        Repetitions of a point are apart, so that a machine that drifts shows as their spread.
        """
        points = self.list_points()
        runs = []
        if self.accuracy:
            largest: dict[str, Point] = {}
            for point in points:
                known = largest.get(point.weights)
                is_larger = known is None or point.batch > known.batch
                if point.network.has_accuracy and is_larger:
                    largest[point.weights] = point
            runs += [self.plan(point, 1, ACCURACY) for point in largest.values()]
        for repetition in range(1, self.repetitions + 1):
            runs += [self.plan(point, repetition) for point in points]
        return runs

    def plan(self, point: Point, repetition: int, mode: str = PERFORMANCE) -> PlannedRun:
        """A run of the sweep's program under its settings."""
        environment = dict(self.env)
        if mode == PERFORMANCE:
            if self.count is not None:
                environment["CK_LOADGEN_COUNT_OVERRIDE"] = self.count
            if self.duration is not None:
                environment["CK_LOADGEN_DURATION"] = self.duration
        return plan_run(point, repetition, mode, self.program, environment, self.name, TAGS)


def read_sweep(options: Mapping[str, Any]) -> Sweep:
    """The sweep that options ask for: `batch`, `env.CK_...` and so on, as in a file.

    A `file` among them is read; what stands beside it goes before what it holds. Raises UserError
    that lists everything that is wrong, also what the program would refuse.
    """
    options = dict(options)
    if "file" in options:
        options = {**read_yaml(Path(str(options.pop("file")))), **options}
    problems = _find_unknown(options)
    values: dict[str, Any] = {}

    def read(key: str, parse: Any) -> None:
        if key in options:
            try:
                values[key] = parse(_split(options[key]))
            except UserError as error:
                problems.append(f"{key}: {error}")

    read("program", lambda words: _match(_NAME, _one(words), "want the name of a CK program"))
    read("scenario", lambda words: _choose(words, SCENARIOS))
    read("batch", _read_integers)
    read("samples_per_query", _read_integers)
    read("qps", lambda words: tuple(map(float, parse_axis(",".join(words)))))
    read("repetitions", lambda words: read_integer(words, 1, 1000))
    read("accuracy", _read_flag)
    read("count", _one)
    read("duration", _one)
    read("name", lambda words: _match(_NAME, _one(words), "want letters, digits and _ . @ -"))
    values["network"] = _read_networks(options, problems)
    values["env"] = _read_environment(options, problems)
    values.setdefault("name", _derive_name(values["network"]))
    sweep = Sweep(**values)
    if sweep.qps and "Server" not in sweep.scenario:
        problems.append("qps: means something in Server only; add it to --scenario=")
    if sweep.samples_per_query and "MultiStream" not in sweep.scenario:
        problems.append("samples_per_query: means something in MultiStream only")
    if not problems:
        problems = _find_problems(sweep)
    if problems:
        raise UserError(
            problems[0]
            if len(problems) == 1
            else f"{len(problems)} things are wrong:\n  " + "\n  ".join(problems)
        )
    return sweep


def read_yaml(path: Path) -> dict[str, Any]:
    """The options that a file holds, with `env: {NAME: value}` as `env.NAME`."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is no YAML: {error}") from error
    if not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
        raise UserError(f"{path}: want lines `batch: 1,2,4..64` and so on, options as in a command")
    environment = content.pop("env", {})
    if not isinstance(environment, dict):
        raise UserError(f"{path}: env: want names with values, such as {{CK_VERBOSE: yes}}")
    return content | {f"env.{name}": value for name, value in environment.items()}


def read_integer(words: Sequence[str], low: int, high: int) -> int:
    """The whole number that an option's only word says. Raises UserError."""
    text = _one(words)
    if not (re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high):
        raise UserError(f"'{text[:100]}': want a whole number, {low} to {high:,}")
    return int(text)


def _find_unknown(options: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in options:
        if key not in _OPTIONS and not key.startswith("env."):
            near = difflib.get_close_matches(key, _OPTIONS, n=1, cutoff=0)[0]
            problems.append(f"{key}: no such option; did you mean {near}?")
    return problems


def _find_problems(sweep: Sweep) -> list[str]:
    """What the program would refuse, each thing once."""
    # Not more are made than may be: axes multiply.
    points = len(list(itertools.islice(sweep._make_points(), MAX_RUNS + 1)))
    if points * sweep.repetitions > MAX_RUNS:
        return [f"more than {MAX_RUNS:,} runs: take fewer values or repetitions"]
    problems: list[str] = []
    for run in sweep.list_runs():
        if run.repetition == 1:
            try:
                read_settings(run.environment)
            except UserError as error:
                several = str(error).split("\n  ")  # after a line that says how many
                problems += several[1:] or several
    return list(dict.fromkeys(problems))


def _split(value: Any) -> list[str]:
    """The words of an option: a string's between commas, a list's items."""
    if isinstance(value, str):
        words = value.split(",")
    else:
        words = [_to_text(item) for item in (value if isinstance(value, list) else [value])]
    words = [word.strip() for word in words]
    if not words or not all(words):
        raise UserError("a value is missing")
    return words


def _to_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    raise UserError(f"want text, a number or a list of them, not {value!r}")


def _one(words: Sequence[str]) -> str:
    if len(words) != 1:
        raise UserError(f"want one value, not {len(words)}")
    return words[0]


def _match(pattern: re.Pattern[str], text: str, wanted: str) -> str:
    if not pattern.fullmatch(text):
        raise UserError(f"'{text[:100]}': {wanted}")
    return text


def _choose(words: Iterable[str], choices: Sequence[str]) -> tuple[str, ...]:
    for word in words:
        if word not in choices:
            near = difflib.get_close_matches(word, choices, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"'{word[:100]}': want {', '.join(choices)}{hint}")
    return tuple(dict.fromkeys(words))


def _read_integers(words: Sequence[str]) -> tuple[int, ...]:
    values = parse_axis(",".join(words))
    for value in values:
        if value.denominator != 1 or value < 1:
            raise UserError(f"{float(value):g}: want whole numbers from 1")
    return tuple(map(int, values))


def _read_flag(words: Sequence[str]) -> bool:
    (answer,) = _choose([_one(words)], ("yes", "no"))
    return answer == "yes"


def _read_networks(options: Mapping[str, Any], problems: list[str]) -> tuple[Network, ...]:
    """The networks. Tags that tell one model are joined with + where commas part models."""
    try:
        if "weights" in options:
            extra = [key for key in _NETWORK_OPTIONS if key in options]
            if extra:
                raise UserError(f"weights: holds all tags itself; leave out {', '.join(extra)}")
            value = options["weights"]  # on the command line one set of tags, in a file many
            sets = [value] if isinstance(value, str) else _split(value)
            return tuple(Network(weights=_match(_TAG, tags, "want tags")) for tags in sets)
        models = [word.replace("+", ",") for word in _split(options.get("model", Network.model))]
        for model in models:
            _match(_TAG, model, "model: want tags, joined with + where one has several")
        precisions: tuple[str | None, ...] = (None,)
        if "precision" in options:
            precisions = _choose(_split(options["precision"]), PRECISIONS)
        engines = _choose(_split(options.get("engine", Network.engine)), ENGINES)
    except UserError as error:
        problems.append(str(error))
        return Sweep.network
    return tuple(itertools.starmap(Network, itertools.product(models, precisions, engines)))


def _read_environment(options: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    environment = {}
    for key in sorted(options):
        if not key.startswith("env."):
            continue
        name = key.removeprefix("env.")
        try:
            value = _to_text(options[key])
        except UserError as error:
            problems.append(f"{key}: {error}")
            continue
        if name in OPTION_OF:
            problems.append(f"{key}: that is for {OPTION_OF[name]}")
        elif not re.fullmatch(r"CK_[A-Z0-9_]{1,60}", name):
            problems.append(f"{key}: want a variable of the program, CK_...")
        elif not _PLAIN.fullmatch(value):
            problems.append(f"{key}: '{value}' has a character that a shell reads")
        elif name == CONF_FILE:
            path = Path(value).absolute()  # the program runs in a folder of its own
            if not path.is_file():
                problems.append(f"{key}: {path} is no file")
            environment[name] = str(path)
        else:
            environment[name] = value
    return environment


def _derive_name(networks: Sequence[Network]) -> str:
    models = dict.fromkeys(network.weights or network.model for network in networks)
    return "explore." + ".".join(model.replace(",", "-").replace("+", "-") for model in models)[:90]
