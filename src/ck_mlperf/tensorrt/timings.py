"""What builds leave for later builds: TensorRT's timings of kernels, and how long each build took.

Both lie in a folder that all plans of one CK_TOOLS share. TensorRT takes no timings of another
version or another GPU, so the file's name has both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.files import write_file
from ck_mlperf.common.locks import hold_lock

if TYPE_CHECKING:
    import tensorrt

    from ck_mlperf.tensorrt.flavour import Flavour
    from ck_mlperf.tensorrt.plan import PlanKey

_CACHE_HEADER = b"ck_mlperf timing cache 1\n"
_HISTORY = "plan-build-times.json"
_MOST_BUILDS = 200
# How much larger another build may have been, in batch and in the model's bytes, to tell something.
_SIMILAR_BATCH = 4
_SIMILAR_BYTES = 2


def cache_path(folder: Path, key: PlanKey) -> Path:
    """The file of timings for a key's flavour, version and GPU."""
    words = [key.flavour, key.version, *map(str, key.gpu.values())]
    name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words))
    return folder / f"timing-{name}.cache"


def use_cache(flavour: Flavour, config: tensorrt.IBuilderConfig, path: Path) -> list[str]:
    """Start from kept timings. What went wrong with them is worth a note, never more."""
    data = _read_cache(path)
    is_used = flavour.use_timing_cache(config, data or b"")
    if data is None:
        return [f"timing cache: {path} is damaged or none of ours; it is made anew"]
    if data and not is_used:
        return [f"timing cache: {flavour.title} refuses {path}; it is made anew"]
    return []


def keep_cache(flavour: Flavour, config: tensorrt.IBuilderConfig, path: Path) -> None:
    """Write the timings back, with those that another build has added meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(path):
        data = flavour.read_timing_cache(config, _read_cache(path) or b"")
        write_file(path, _CACHE_HEADER + hashlib.sha256(data).digest() + data)


def _read_cache(path: Path) -> bytes | None:
    """The timings in a file, b'' where there is none, None where the file is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    header, digest, data = content[:31], content[31:63], content[63:]
    if header != _CACHE_HEADER or digest != hashlib.sha256(data).digest():
        return None
    return data


@dataclasses.dataclass(frozen=True)
class BuildTime:
    """How long a build took. kind: flavour, its major version, GPU and precision. seconds: with
    reading the model and writing the plan. model_bytes: the ONNX file's size."""

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
    """Keep how long a build took that has come to its end.

    It is a hint: of two at one moment one may be lost, and what cannot be written is left out.
    """
    path = folder / _HISTORY
    builds = [*_read_history(path), BuildTime.of(key, model_bytes, round(seconds, 1))]
    listed = [dataclasses.asdict(build) for build in builds[-_MOST_BUILDS:]]
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(listed, indent=1) + "\n")


def describe_last(folder: Path, key: PlanKey, model_bytes: int) -> str | None:
    """How long the last build of this kind took, in words; None where there was none."""
    wanted = BuildTime.of(key, model_bytes, 0)
    for build in reversed(_read_history(folder / _HISTORY)):
        if build.is_similar(wanted):
            batch = "" if build.max_batch == key.max_batch else f", for batch {build.max_batch}"
            return f"the last {key.precision} build here took {build.seconds:.0f} s{batch}"
    return None


def _read_history(path: Path) -> list[BuildTime]:
    """The builds, oldest first; none where the file is missing or damaged."""
    try:
        builds = [BuildTime(**build) for build in json.loads(path.read_text(encoding="utf-8"))]
        for build in builds:
            if not min(build.max_batch, build.model_bytes) > 0 or not build.seconds >= 0:
                return []
    except (OSError, ValueError, TypeError, RecursionError):
        return []
    return builds


def _is_within(one: float, other: float, factor: float) -> bool:
    return max(one, other) <= factor * min(one, other)
