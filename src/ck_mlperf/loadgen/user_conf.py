"""LoadGen's user.conf, read as strictly as LoadGen reads it loosely.

LoadGen skips a line `key=value`, reads 15.5 as 15 where it wants a whole number, reads 010 as 8
and ignores a name that it does not know, all without a message. Here each of these is a problem.
The grammar and the keys are those of `TestSettings::FromConfig` in test_settings_internal.cc,
LoadGen 6.0.17: bytes, of which a line feed alone ends a line and ASCII's blanks alone part words.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from ck_mlperf.common.files import read_regular
from ck_mlperf.common.suggest import suggest
from ck_mlperf.loadgen import mlperf_conf

MODEL = "resnet50"
"""LoadGen's name of the image classification task: whose rules mlperf.conf applies."""

# How near to MODEL a name is a misspelling of it: resnet and resnet-50 are, ssd-resnet34 is not.
_NEAR = 0.7
_ANY = ("*", "SingleStream", "MultiStream", "Server", "Offline")
_LATENCY = ("*", "SingleStream", "MultiStream", "Server")
# Key: whether LoadGen takes a whole number (int) or any (float), and the scenarios that read it.
_KEYS: dict[str, tuple[type[int] | type[float], tuple[str, ...]]] = {
    "min_duration": (int, _ANY),
    "max_duration": (int, _ANY),
    "min_query_count": (int, _ANY),
    "max_query_count": (int, _ANY),
    "performance_issue_unique": (int, _ANY),
    "performance_issue_same": (int, _ANY),
    "performance_issue_same_index": (int, _ANY),
    "sample_concatenate_permutation": (int, _ANY),
    "accuracy_log_rng_seed": (int, _ANY),
    "accuracy_log_sampling_target": (int, _ANY),
    "print_timestamps": (int, _ANY),
    "target_latency": (float, _LATENCY),
    "target_latency_percentile": (float, _LATENCY),
    "target_qps": (float, ("*", "Server", "Offline")),
    "samples_per_query": (int, ("*", "MultiStream")),
    "coalesce_queries": (int, ("*", "Server")),
    "max_async_queries": (int, ("*", "Server")),
}
_ELSEWHERE = {
    "mode": "set CK_LOADGEN_MODE instead",
    "performance_sample_count_override": "set CK_LOADGEN_BUFFER_SIZE instead",
    "accuracy_sample_count_override": "set CK_LOADGEN_DATASET_SIZE instead",
    "qsl_rng_seed": "LoadGen takes its seeds from its own mlperf.conf",
    "sample_index_rng_seed": "LoadGen takes its seeds from its own mlperf.conf",
    "schedule_rng_seed": "LoadGen takes its seeds from its own mlperf.conf",
    "accuracy_log_probability": "LoadGen takes it from its own mlperf.conf",
}
_LARGEST = 2**31 - 1  # some of LoadGen's fields are an int


@dataclass
class UserConf:
    """What a user.conf says of image classification in one scenario."""

    values: dict[str, int | float] = field(default_factory=dict)
    """By key."""
    problems: list[str] = field(default_factory=list)
    """What is wrong. Each names the file and the line, as the notes do."""
    notes: list[str] = field(default_factory=list)
    """Lines that have no effect."""


def read_user_conf(path: Path, scenario: str) -> UserConf:
    """What the file says. Lines for other models may be in it: LoadGen ignores them."""
    try:
        content = read_regular(path)
    except OSError as error:
        problem = f"{path}: {error.strerror}. CK_LOADGEN_CONF_FILE wants a user.conf"
        return UserConf(problems=[problem])
    conf = UserConf()
    lines: dict[str, int] = {}
    values: dict[str, int | float] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        tokens = line.split()
        where = f"{path}, line {number}"
        if b"\r" in line.rstrip():
            conf.problems.append(
                f"{where}: a carriage return in it, which ends no line for LoadGen"
            )
            continue
        if not tokens or tokens[0] == b"#":
            continue
        try:
            model, name, value = _split_line([_read_word(token) for token in tokens])
            if model not in ("*", MODEL):
                if model not in mlperf_conf.MODELS:
                    conf.notes.append(
                        f"{where}: passed over, LoadGen {mlperf_conf.VERSION} knows no model "
                        f"{model!r}"
                    )
                continue
            if name in lines:
                raise ValueError(f"{name} is set on line {lines[name]} already")
            values[name] = _read_value(name, value, scenario)
            lines[name] = number
        except ValueError as error:
            conf.problems.append(f"{where}: {error}")
    conf.values = _select(values, scenario)
    return conf


def _read_word(token: bytes) -> str:
    """Raises ValueError where a byte is not printable ASCII: it may look like a blank, or not be
    seen at all, but for LoadGen it is part of the word."""
    text = token.decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"{token[:80]!r}: LoadGen wants ASCII, as text without a byte order mark")
    return text


def _split_line(tokens: list[str]) -> tuple[str, str, str]:
    """(model, model.Scenario.key, value). Raises ValueError."""
    if tokens[0].startswith("#"):
        raise ValueError("LoadGen wants a space after the # of a comment")
    if len(tokens) > 3 and tokens[3].startswith("#"):
        raise ValueError("LoadGen takes a comment on a line of its own only")
    if len(tokens) != 3 or tokens[1] != "=" or tokens[0].count(".") < 2:
        raise ValueError("want `model.Scenario.key = value`, with a space on either side of the =")
    # A model's name may have dots: wan-2.2-t2v-a14b.
    model = tokens[0].rsplit(".", 2)[0]
    near = "" if model in (MODEL, *mlperf_conf.MODELS) else suggest(model, [MODEL], _NEAR)
    if near:
        raise ValueError(f"no model {model!r}{near}")
    return model, tokens[0], tokens[2]


def _read_value(name: str, text: str, scenario: str) -> int | float:
    """The value of a key of image classification. Raises ValueError."""
    _, line_scenario, key = name.rsplit(".", 2)
    if line_scenario not in _ANY:
        near = suggest(line_scenario, _ANY)
        raise ValueError(f"no scenario {line_scenario!r}: want {', '.join(_ANY)}{near}")
    if key in _ELSEWHERE:
        raise ValueError(f"{key} has no effect here: {_ELSEWHERE[key]}")
    if key not in _KEYS:
        raise ValueError(f"LoadGen knows no key {key!r}{suggest(key, _KEYS)}")
    kind, scenarios = _KEYS[key]
    if line_scenario not in scenarios:
        raise ValueError(f"LoadGen does not read {key} in {line_scenario}")
    reader = scenario if line_scenario == "*" else line_scenario
    if key == "target_latency" and reader == "Server":
        kind = int  # and any number in the other scenarios
    return _parse_number(key, text, kind)


def _parse_number(key: str, text: str, kind: type[int] | type[float]) -> int | float:
    if kind is int:
        # LoadGen reads 010 as octal and wraps -1 round.
        if not re.fullmatch(r"0|[1-9][0-9]*", text) or int(text) > _LARGEST:
            raise ValueError(f"{key} = {text}: want a whole number, 0 to {_LARGEST}")
        return int(text)
    try:
        value = float(text) if re.fullmatch(r"[0-9.eE+-]+", text) else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{key} = {text}: want a number above 0")
    if key == "target_latency_percentile" and value >= 100:
        raise ValueError(f"{key} = {text}: want per cent, below 100")
    return value


def _select(values: dict[str, int | float], scenario: str) -> dict[str, int | float]:
    """The values that apply, by key; LoadGen's order of precedence, lowest first."""
    selected: dict[str, int | float] = {}
    for prefix in ("*.*.", f"{MODEL}.*.", f"*.{scenario}.", f"{MODEL}.{scenario}."):
        for name, value in values.items():
            key = name.removeprefix(prefix)
            if name.startswith(prefix) and scenario in _KEYS[key][1]:
                selected[key] = value
    return selected
