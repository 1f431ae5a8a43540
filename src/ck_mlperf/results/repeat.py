"""The command that makes a recorded run again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ck_mlperf.common.shell import is_plain
from ck_mlperf.common.tags import is_ck_tag
from ck_mlperf.loadgen.engines.registry import find_by_name
from ck_mlperf.loadgen.job import NOT_RECORDED
from ck_mlperf.loadgen.settings import EXPLORE_RUN, VARIABLES
from ck_mlperf.results.experiments import Failure
from ck_mlperf.results.record import Record

_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FIRST_IMAGES = re.compile(r"first\.\d+")
# CK gives the program its own file where the user gives none; the record has a file's name alone.
_IMPLIED = (("CK_LOADGEN_CONF_FILE", "user.conf"),)
_OWN = {variable.name for variable in VARIABLES}
# Variables of libraries that a command to repeat a run may set. With others, such as LD_PRELOAD and
# CUDA_INJECTION64_PATH, a record could make its reader run anything.
_HARMLESS = {
    *("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_DEVICE_ORDER", "CUDA_MODULE_LOADING"),
    *("CUDA_VISIBLE_DEVICES", "GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "KMP_AFFINITY"),
    *("KMP_BLOCKTIME", "MALLOC_ARENA_MAX", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OMP_PLACES"),
    *("OMP_PROC_BIND", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"),
}


def repeat_run(record: Record) -> str | None:
    """The command for a recorded run; None where it could do anything else."""
    tags = {dep.key: dep.tags for dep in record.deps}
    return make_command(
        record.program,
        list_given(record),
        _request_weights(tags.get("weights", ()), record.engine.name),
        next((tag for tag in tags.get("images", ()) if _FIRST_IMAGES.fullmatch(tag)), None),
    )


def list_given(record: Record) -> dict[str, str]:
    """The variables that the user set, and those passed on, as the environment has them."""
    settings = {
        name: _format_value(setting.value)
        for name, setting in record.settings.ours.items()
        if setting.origin == "env" and (name, setting.value) not in _IMPLIED
        if name != EXPLORE_RUN
    }
    passed = record.settings.passed or {}
    return settings | {name: value for name, value in passed.items() if value != NOT_RECORDED}


def repeat_failure(failure: Failure) -> str | None:
    """The command for a run of a sweep that failed; None where it could do anything else."""
    return make_command(
        failure.program,
        {name: value for name, value in failure.environment.items() if name != EXPLORE_RUN},
        [tag for tag in failure.weights.split(",") if tag],
        None,
    )


def make_command(
    program: str, environment: Mapping[str, str], weights: Collection[str], images: str | None
) -> str | None:
    """The command that makes a run again; None where it could do anything else.

    A shell interprets no part of it, and no variable is there that could run anything: those of the
    program, and _HARMLESS.
    environment: variables of --env. weights: the model's tags. images: a tag of the images.
    """
    words = ["ck", "benchmark", f"program:{program}", "--repetitions=1"]
    words += [f"--env.{name}={environment[name]}" for name in sorted(environment)]
    if weights:
        words.append(f"--dep_add_tags.weights={','.join(sorted(weights))}")
    if images:
        words.append(f"--dep_add_tags.images={images}")
    is_known = _PROGRAM.fullmatch(program) and environment.keys() <= _OWN | _HARMLESS
    if not is_known or not all(map(is_plain, words)):
        return None
    return shlex.join([*words, "--skip_print_timers"])


def _request_weights(tags: Sequence[str], engine: str) -> list[str]:
    """The tags that ask for a model as it was resolved, and for the engine, which has its own."""
    request = [tag for tag in tags if not is_ck_tag(tag)]
    known = find_by_name(engine)
    return [*request, known.tag] if known and known.tag else request


def _format_value(value: Any) -> str:
    """A setting as the environment has it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
