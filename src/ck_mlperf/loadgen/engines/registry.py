"""The engines: one entry each, which everything that has to know of an engine reads.

Needs the standard library alone: CK's hooks read it before any library is installed. The engines
themselves are imported when they are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ck_mlperf.common.errors import UserError

ONNX, PLAN, NONE = "onnx", "tensorrt", ""
CPU, GPU, NOTHING = "cpu", "gpu", "nothing"
# In `Engine.libraries`: the TensorRT that the plan's own tags name.
PLANS_OWN = "the plan's"

_CUDA = {"pycuda": "pycuda", "cuda-bindings": "cuda-bindings"}


@dataclass(frozen=True)
class EngineEntry:
    """What is known of an engine before it is imported."""

    kind: str
    """The word by which job.json, a sweep and `make_engine` name it."""
    implementation: str
    """Its module in this package, and its class: 'null:NullEngine'."""
    name: str
    """What the name that it has in records begins with."""
    title: str
    """How a report says what ran; the fields are those of a record's `engine`."""
    model: str
    """The tag of the models that it runs: ONNX or PLAN; NONE: no run asks for it by tags."""
    tag: str | None = None
    """The tag, no model's own, by which a run asks for it; None: it runs such models by default."""
    runs_on: str = CPU
    """CPU, GPU, or NOTHING: it computes nothing."""
    takes_devices: bool = True
    """Whether CK_CUDA_DEVICES means something to it."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """{the program's dep: the tag of the Python library}, or PLANS_OWN."""


_ENTRIES = (
    EngineEntry(
        kind="onnx",
        implementation="onnxruntime_cpu:OnnxRuntimeCpu",
        name="onnxruntime-cpu",
        title="ONNX Runtime CPU {version} (no GPU, not TensorRT)",
        model=ONNX,
        takes_devices=False,
        libraries={"engine": "onnxruntime"},
    ),
    EngineEntry(
        kind="onnx-cuda",
        implementation="onnxruntime_cuda:OnnxRuntimeCuda",
        name="onnxruntime-cuda",
        title="ONNX Runtime CUDA {version} on {device} (not TensorRT)",
        model=ONNX,
        tag="device.cuda",
        runs_on=GPU,
        libraries={"engine": "onnxruntime-gpu", **_CUDA},
    ),
    EngineEntry(
        kind="tensorrt",
        implementation="tensorrt:TensorRt",
        name="tensorrt",
        title="TensorRT {version} on {device}",
        model=PLAN,
        runs_on=GPU,
        libraries={"engine": PLANS_OWN, **_CUDA},
    ),
    EngineEntry(
        kind="null",
        implementation="null:NullEngine",
        name="null",
        title="null engine (no network ran, not TensorRT)",
        model=NONE,
        runs_on=NOTHING,
    ),
)


ENGINES = {entry.kind: entry for entry in _ENTRIES}


def find_by_name(name: str) -> EngineEntry | None:
    """The engine that a record names; None for one that is not known any more."""
    return next((engine for engine in ENGINES.values() if name.startswith(engine.name)), None)


def list_tags() -> set[str]:
    """The tags of all engines, which are no properties of a model."""
    return {engine.tag for engine in ENGINES.values() if engine.tag}


def choose_engine(model: str, tags: Collection[str]) -> EngineEntry:
    """The engine that runs models of a kind, ONNX or PLAN, as a run's tags ask for.

    Raises UserError where two are asked for.
    """
    able = [engine for engine in ENGINES.values() if engine.model == model]
    asked = [engine for engine in able if engine.tag in tags]
    if len(asked) > 1:
        named = " and ".join(str(engine.tag) for engine in asked)
        raise UserError(f"{named}: want one engine, not several")
    return asked[0] if asked else next(engine for engine in able if engine.tag is None)
