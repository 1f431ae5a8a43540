"""The options of `ck explore loadgen`, each declared once.

The parser, --help and the documents take them from here, and so does what reads them: a sweep, a
search, a file. CK's own interpreter parses the options: this module needs the standard library
alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ck_mlperf.catalog import experiment_entry
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import read_yaml
from ck_mlperf.common.suggest import suggest
from ck_mlperf.explore.axes import parse_axis
from ck_mlperf.loadgen.setting_types import Choice, Flag, Integer, Number, SettingType, Text

LOADGEN = "loadgen"
"""The value of --rules that leaves the verdict to LoadGen."""

ENTRY_NAME = Text(experiment_entry.NAME_RANGE, experiment_entry.NAME)
"""The name of a CK entry, which is a folder's."""
UID = Text("16 hexadecimal digits", r"[0-9a-f]{16}")
MODEL_TAGS = Text(
    "tags, joined with + where one model has several", r"[A-Za-z0-9_.+-]+(?:,[A-Za-z0-9_.+-]+)*"
)


@dataclass(frozen=True)
class Option:
    """An option: `--name=metavar` on the command line, `name: value` in a file."""

    name: str
    metavar: str
    help: str
    read: Callable[[Any], Any]
    """The value that the user wrote, text or in a file also a number or a list, as what the option
    means. Raises UserError, without the option's name."""
    value: Any = None
    """The default."""
    default: str = ""
    """The default in words, where `value` does not say it."""

    @property
    def full_help(self) -> str:
        """The help with the default."""
        value = ",".join(self.value) if isinstance(self.value, tuple) else self.value
        return f"{self.help} (default: {self.default or value or 'none'})"


def option(
    metavar: str, help: str, read: Callable[[Any], Any], value: Any, default: str = ""
) -> Any:
    """A field of a dataclass that is an option; see `Option`."""
    made = Option("", metavar, help, read, value, default)
    return dataclasses.field(default=value, metadata={"option": made})


def list_options(dataclass: Any) -> tuple[Option, ...]:
    """The options that are fields of a dataclass."""
    return tuple(
        dataclasses.replace(field.metadata["option"], name=field.name)
        for field in dataclasses.fields(dataclass)
        if field.metadata
    )


def split_words(value: Any) -> list[str]:
    """The words of a value: text between commas, or the items of a list."""
    if isinstance(value, str):
        words = value.split(",")
    else:
        words = [to_text(item) for item in (value if isinstance(value, list) else [value])]
    words = [word.strip() for word in words]
    if not words or not all(words):
        raise UserError("a value is missing")
    return words


def to_text(value: Any) -> str:
    """A value of a file as a user would write it on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    raise UserError(f"want text, a number or a list of them, not {value!r}")


def read_word(value: Any) -> str:
    """The only word."""
    words = split_words(value)
    if len(words) != 1:
        raise UserError(f"want one value, not {len(words)}")
    return words[0]


def read_rates(value: Any) -> tuple[float, ...]:
    """The numbers of an axis."""
    return tuple(map(float, parse_axis(",".join(split_words(value)))))


def read_integers(value: Any) -> tuple[int, ...]:
    """The whole numbers of an axis."""
    values = parse_axis(",".join(split_words(value)))
    for number in values:
        if number.denominator != 1 or number < 1:
            raise UserError(f"{float(number):g}: want whole numbers from 1")
    return tuple(map(int, values))


def read_models(value: Any) -> tuple[str, ...]:
    """The tags of each model, joined with commas."""
    return tuple(tags.replace("+", ",") for tags in several(MODEL_TAGS)(value))


def read_weights(value: Any) -> tuple[str, ...]:
    """Sets of tags: one on the command line, in a file also a list."""
    return several(MODEL_TAGS)(value if isinstance(value, list) else [value])


def one(kind: SettingType) -> Callable[[Any], Any]:
    """Reads a single word."""
    return lambda value: _parse(kind, read_word(value))


def several(kind: SettingType) -> Callable[[Any], tuple[Any, ...]]:
    """Reads words, each once."""
    return lambda value: tuple(dict.fromkeys(_parse(kind, word) for word in split_words(value)))


def _parse(kind: SettingType, word: str) -> Any:
    try:
        return kind.parse(word)
    except ValueError as error:
        raise UserError(f"'{word[:100]}': {error}") from error


ENVIRONMENT_OPTION = Option(
    "env.NAME",
    "VALUE",
    "any other variable of `ck run`, for all runs: --env.CK_VERBOSE=yes",
    to_text,
)
FILE_OPTION = Option(
    "file",
    "FILE.yaml",
    "read these options, without the dashes, from a file; the command line takes precedence",
    read_word,
)
SEARCH_OPTIONS = (
    Option(
        "find",
        "max",
        "search for the largest load that is VALID: the rate of Server, the samples per query of "
        "MultiStream, the batch of Offline",
        one(Text("max", "max")),
        default="a sweep",
    ),
    Option(
        "rules",
        "SET",
        f"who judges: {LOADGEN}, or a set of rules.json",
        read_word,
        default=f"{LOADGEN}, in MultiStream v0.5",
    ),
    Option(
        "resolution",
        "SHARE",
        "the smallest step, as a share of the load",
        one(Number(0.001, 0.5)),
        default="0.02 in Server, else whole numbers",
    ),
    Option("limit", "N", "the highest whole number to try", one(Integer(1, 65_536)), value=4096),
    Option(
        "start",
        "LOAD",
        "the load to begin with",
        one(Number(0.001, 100_000_000)),
        default="Server half of what is measured, MultiStream 8, Offline --limit",
    ),
    Option("max_runs", "N", "the most runs", one(Integer(1, 1000)), value=60),
)
SUBMISSION_OPTIONS = (
    Option(
        "submission",
        "edge|datacenter-edge",
        "run all that a submission of such a system needs: each scenario's accuracy, 600 s of "
        "performance, TEST01 and TEST04. --scenario= takes some of its scenarios",
        one(
            Text(
                "edge or datacenter-edge (no round after v5.0 takes ResNet-50 in datacenter)",
                "edge|datacenter-edge",
            )
        ),
        default="a sweep",
    ),
    Option(
        "infer",
        "NAME,...",
        "do not run these scenarios, infer them from SingleStream: MultiStream, Offline",
        several(Choice(("MultiStream", "Offline"))),
        (),
    ),
    Option(
        "rehearse",
        "",
        "rehearse a submission: seconds in place of minutes, which nobody may submit",
        one(Flag()),
        False,
        default="no",
    ),
)
CLUSTER_OPTIONS = (
    Option(
        "cluster",
        "WHERE",
        "spread the runs over Dask's workers: tcp://HOST:PORT, slurm or ssh:FILE",
        to_text,
        default="this machine",
    ),
    Option("jobs", "N", "Slurm jobs, a worker each", one(Integer(1, 1000)), value=1),
    Option(
        "remote_python",
        "PATH",
        "the interpreter on the hosts of ssh:",
        to_text,
        default="this one's path",
    ),
)


def read_options(
    given: Mapping[str, Any], options: Sequence[Option]
) -> tuple[dict[str, Any], list[str]]:
    """The value of each option, as given or its default; and what is wrong with the given ones.

    given: by name; variables (env.NAME) are passed over.
    """
    names = [option.name for option in options]
    problems = [
        f"{name}: no such option{suggest(name, names, cutoff=0)}"
        for name in given
        if name not in names and not name.startswith("env.")
    ]
    values = {}
    for option in options:
        values[option.name] = option.value
        if option.name in given:
            try:
                values[option.name] = option.read(given[option.name])
            except UserError as error:
                problems.append(f"{option.name}: {error}")
    return values, problems


def merge_file(given: Mapping[str, Any]) -> dict[str, Any]:
    """The given options and those of the file that `file` names, over which they take precedence.

    In the file, `env: {NAME: value}` stands for `env.NAME`. Raises UserError.
    """
    if FILE_OPTION.name not in given:
        return dict(given)
    path = Path(str(given[FILE_OPTION.name]))
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if not (isinstance(content, dict) and all(isinstance(key, str) for key in content)):
        raise UserError(f"{path}: want lines `batch: 1,2,4..64` and so on, options as in a command")
    if FILE_OPTION.name in content:
        raise UserError(f"{path}: file: no such option in a file")
    variables = content.pop("env", {})
    if not isinstance(variables, dict):
        raise UserError(f"{path}: env: want names with values, such as {{CK_VERBOSE: yes}}")
    content |= {f"env.{name}": value for name, value in variables.items()}
    return content | {name: given[name] for name in given if name != FILE_OPTION.name}
