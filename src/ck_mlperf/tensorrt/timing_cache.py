"""What builds leave for later builds: TensorRT's timings of kernels, and how long each build took.

Both are in a folder that all plans of one CK_TOOLS share. TensorRT refuses timings of another
version or another GPU, so the file's name has both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ck_mlperf.common.files import MOST_LOG_BYTES, read_json, read_regular, write_file
from ck_mlperf.common.locks import hold_lock, lock_path
from ck_mlperf.tensorrt.api.interface import Build
from ck_mlperf.tensorrt.key import PlanKey

# The name of the format, which is older than this package's: files of before are still used.
_CACHE_HEADER = b"tensorrt_helper timing cache 1\n"
_DIGEST_BYTES = 32
_HISTORY = "plan-build-times.json"
_MOST_BUILDS = 200
# How much another build may differ, in batch and in the model's bytes, to tell something.
_SIMILAR_BATCH = 4
_SIMILAR_BYTES = 2


def cache_path(folder: Path, key: PlanKey) -> Path:
    """The file of timings for a key's flavour, version and GPU."""
    words = [key.flavour, key.version, *map(str, key.gpu.values())]
    name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words))
    return folder / f"timing-{name}.cache"


def use_cache(build: Build, title: str, path: Path) -> list[str]:
    """Start a build from the timings in a file. Problems with them are only worth a note.

    title: of the TensorRT, for the note.
    """
    data = _read_cache(path)
    is_used = build.use_timings(data or b"")
    if data is None:
        return [f"timing cache: {path} is damaged or not a timing cache; it is replaced"]
    if data and not is_used:
        return [f"timing cache: {title} refuses {path}; it is replaced"]
    return []


def keep_cache(build: Build, path: Path) -> None:
    """Write the timings back, merged with those that another build has added meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(lock_path(path)):
        data = build.read_timings(_read_cache(path) or b"")
        write_file(path, _CACHE_HEADER + hashlib.sha256(data).digest() + data)


def _read_cache(path: Path) -> bytes | None:
    """The timings in a file, b'' if there is none, None if the file is damaged."""
    try:
        content = read_regular(path, MOST_LOG_BYTES)
    except FileNotFoundError:
        return b""
    header, rest = content[: len(_CACHE_HEADER)], content[len(_CACHE_HEADER) :]
    digest, data = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
    if header != _CACHE_HEADER or digest != hashlib.sha256(data).digest():
        return None
    return data


@dataclasses.dataclass(frozen=True)
class BuildTime:
    """How long a build took. kind: flavour, its major version, GPU and precision. seconds:
    including reading the model and writing the plan. model_bytes: the ONNX file's size."""

    kind: list[Any]
    max_batch: int
    model_bytes: int
    seconds: float

    @classmethod
    def of(cls, key: PlanKey, model_bytes: int, seconds: float) -> BuildTime:
        major = key.version.partition(".")[0]
        return cls(
            [key.flavour, major, key.gpu, key.precision], key.max_batch, model_bytes, seconds
        )

    def is_similar(self, other: BuildTime) -> bool:
        return (
            self.kind == other.kind
            and _is_within(self.max_batch, other.max_batch, _SIMILAR_BATCH)
            and _is_within(self.model_bytes, other.model_bytes, _SIMILAR_BYTES)
        )


def note_build(folder: Path, key: PlanKey, model_bytes: int, seconds: float) -> None:
    """Keep how long a finished build took.

    It is a hint: of two builds that end together one may be lost, and a failure to write it is
    ignored.
    """
    path = folder / _HISTORY
    builds = [*_read_history(path), BuildTime.of(key, model_bytes, round(seconds, 1))]
    listed = [dataclasses.asdict(build) for build in builds[-_MOST_BUILDS:]]
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(listed, indent=1) + "\n")


def describe_last(folder: Path, key: PlanKey, model_bytes: int) -> str | None:
    """How long the last build of this kind took, in words; None if there was none."""
    wanted = BuildTime.of(key, model_bytes, 0)
    for build in reversed(_read_history(folder / _HISTORY)):
        if build.is_similar(wanted):
            batch = "" if build.max_batch == key.max_batch else f", for batch {build.max_batch}"
            return f"the last {key.precision} build here took {build.seconds:.0f} s{batch}"
    return None


def _read_history(path: Path) -> list[BuildTime]:
    """The builds, oldest first; none if the file is missing or damaged."""
    try:
        builds = [BuildTime(**build) for build in read_json(path)]
        for build in builds:
            if not min(build.max_batch, build.model_bytes) > 0 or not build.seconds >= 0:
                return []
    except (OSError, ValueError, TypeError):
        return []
    return builds


def _is_within(one: float, other: float, factor: float) -> bool:
    return max(one, other) <= factor * min(one, other)
