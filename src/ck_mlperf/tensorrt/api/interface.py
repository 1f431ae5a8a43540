"""What the rest of the code knows of a TensorRT: Flavour, Build, LoadedPlan and Context.

Each family of versions implements this in a file of its own, beside this one. To import it takes
the standard library alone.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt.names import MODULE, RTX_MODULE

if TYPE_CHECKING:
    from ck_mlperf.tensorrt.key import PlanKey
    from ck_mlperf.tensorrt.progress import Progress

# How to install each flavour, and what it runs on. A flavour is named as Python imports it.
FLAVOURS = {
    MODULE: (
        "pip install tensorrt-cu13 (or -cu12, by the driver's CUDA version; 11 or 10, compute "
        "capability 7.5 and newer), or, for a GTX 1080 and others down to compute capability 6.0, "
        "pip install tensorrt==8.6.1 (Python up to 3.11); all fetch their libraries from NVIDIA's "
        "own package index"
    ),
    RTX_MODULE: (
        "pip install tensorrt-rtx-cu13 (or -cu12, by the driver's CUDA version): GeForce and RTX "
        "GPUs of compute capability 7.5, 8.0, 8.6, 8.9 and 12.x; it builds plans without a GPU too"
    ),
}

# The layouts that a plan's input may have besides row by row, by its type. The builder chooses the
# fastest for its first layer. All of them pad the colours of a pixel with zeros.
INPUT_FORMATS = {"INT8": ("CHW4",), "HALF": ("CHW4", "HWC8")}

# The largest value of each limit that has one.
_LARGEST = {"builder_level": 5, "tiling_level": 3, "aux_streams": 64}


@dataclasses.dataclass(frozen=True)
class IoTensor:
    """An input or output of a plan. dtype: numpy's name. shape: -1 where the batch is free."""

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


class Flavour(abc.ABC):
    """One installed TensorRT. The library itself is imported by `parse` and `load_plan`.

    version: in full. title: product and version, for people. release: major and minor version.
    notes: what the user should know of this version.
    """

    name: ClassVar[str]
    """The module that Python imports."""
    product: ClassVar[str] = "TensorRT"
    newest: ClassVar[int]
    """The newest major version that the family was written for."""
    distributions: ClassVar[tuple[str, ...]]
    """The names under which pip installs it, the first choice first."""
    library: ClassVar[str]
    """The stem of its main library's file name."""
    is_strongly_typed: ClassVar[bool] = True
    """Whether the types in the ONNX file are what runs; else they are hints to the builder."""
    reports_progress: ClassVar[bool] = True
    """Whether a build reports its progress and can be stopped."""
    has_timing_cache: ClassVar[bool] = True
    """Whether a build times kernels, and those timings can be kept."""
    captures_graphs: ClassVar[bool] = True
    """Whether the caller may capture a batch into a CUDA graph; else TensorRT does it itself."""
    builds_for_list: ClassVar[bool] = False
    """Whether a plan is built for a list of compute capabilities, not for the GPU that is there."""
    previews: ClassVar[tuple[str, ...]] = ()
    """The preview features that a build turns on."""
    has_tiling: bool = False
    """Whether the builder has a tiling_level."""
    least_capability: tuple[int, int]
    """The oldest GPUs that this version runs on; docs/tensorrt.md has the sources."""

    def __init__(self, version: str, release: tuple[int, int]) -> None:
        self.version = version
        self.release = release
        self.title = f"{self.product} {version}"
        self.notes: list[str] = []
        if release[0] > self.newest:
            self.notes.append(
                f"{self.title} is newer than this code, which was written for {self.newest}.x: "
                f"it is used as if it were {self.newest}"
            )

    @property
    def choices(self) -> str:
        """How to install the versions of this flavour, and what they run on."""
        return FLAVOURS[self.name]

    @classmethod
    @abc.abstractmethod
    def takes(cls, release: tuple[int, int]) -> bool:
        """Whether this family is the one for a release of `name`."""

    # What can be said without importing the library

    def list_flags(self, precision: str) -> tuple[str, ...]:
        """The builder flags to set for `precision`, by name. TF32 is cleared if it is not listed.

        fp32 is exact: without TF32. The others have parts in float32 (softmax, layers that are not
        quantised), for which TF32's 10 bits of mantissa suffice: fp16 has no more.
        """
        return () if precision == "fp32" else ("TF32",)

    def list_options(self, precision: str, limits: Mapping[str, int | None]) -> dict[str, Any]:
        """What else a build depends on, as the plan's key holds it.

        limits: TensorRT's own where None. workspace_bytes: the most device memory that a layer may
        use; builder_level: 0 to 5, how long to look for kernels; aux_streams: how many streams a
        context may use beside its own; tiling_level: 0 to 3.
        Raises UserError if this version does not support a limit.
        """
        for name, most in _LARGEST.items():
            value = limits[name]
            if value is not None and not 0 <= value <= most:
                raise UserError(f"{name} {value}: want 0 to {most}")
        if limits["tiling_level"] is not None and not self.has_tiling:
            raise UserError(f"{self.title} has no tiling_level: TensorRT 10.8 and newer have one")
        return {
            "typing": "strong" if self.is_strongly_typed else "weak",
            "flags": list(self.list_flags(precision)),
            "previews": list(self.previews),
            "input_formats": {name: list(formats) for name, formats in INPUT_FORMATS.items()},
            "profiling_verbosity": "DETAILED",
            **limits,
        }

    def choose_gpu(
        self, capabilities: Sequence[str] | None, find: Callable[[], list[Gpu]]
    ) -> dict[str, Any]:
        """What a plan is built for, as its key holds it.

        capabilities: the compute capabilities that were asked for. find: `find_gpus`. Raises
        UserError if this flavour cannot build for that.
        """
        if capabilities is not None:
            raise UserError(
                f"--compute-capabilities: {self.title} builds for the GPU of this machine. Leave "
                "the option out, or use the flavour tensorrt_rtx"
            )
        gpus = find()
        if not gpus:
            raise UserError(
                f"{self.title} builds a plan on the GPU that will run it, and there is none here "
                "(the driver lists none). Build on the machine that has it, or use the flavour "
                f"tensorrt_rtx, which needs none: {FLAVOURS[RTX_MODULE]}"
            )
        if len(gpus) > 1:
            raise UserError(
                f"this machine has different GPUs, {' and '.join(map(str, gpus))}, and a plan fits "
                "one kind. Choose with CUDA_DEVICE_ORDER=PCI_BUS_ID and CUDA_VISIBLE_DEVICES=0 "
                "(the index that nvidia-smi shows)"
            )
        gpu, least = gpus[0], self.least_capability
        if tuple(map(int, gpu.compute_capability.split("."))) < least:
            raise UserError(
                f"{self.title} does not run on {gpu}: it needs {least[0]}.{least[1]} or newer. "
                f"Install an older one: {FLAVOURS[MODULE]}"
            )
        return {"name": gpu.name, "compute_capability": gpu.compute_capability}

    # What imports the library

    @abc.abstractmethod
    def parse(self, model: bytes, path: Path) -> Build:
        """The network of a serialised ONNX model. path: the model's, for messages.

        Raises UserError if TensorRT cannot start (no driver, no GPU), or if it does not support
        the model: then the message names the nodes at fault.
        """

    @abc.abstractmethod
    def load_plan(self, plan: bytes) -> LoadedPlan:
        """Deserialise a plan that `plan_file.read_plan` has read, on the current CUDA device.

        Raises UserError with TensorRT's own reason: no driver, a GPU that the plan was not built
        for, a plan of another version, a damaged plan.
        """

    @abc.abstractmethod
    def take_log(self) -> list[tuple[str, str]]:
        """TensorRT's messages since the last call, as (severity, text), without verbose ones."""


class Build(abc.ABC):
    """A network that was parsed. Configure it, then run the build once."""

    @property
    @abc.abstractmethod
    def tensors(self) -> list[IoTensor]:
        """The network's inputs, then its outputs."""

    @abc.abstractmethod
    def configure(self, key: PlanKey, float32_nodes: Collection[str] = ()) -> None:
        """Set up the builder as the key says.

        float32_nodes: the names of the nodes to keep in float32 if the builder chooses types.
        Raises UserError if the model's shapes do not allow the key's batches.
        """

    @abc.abstractmethod
    def use_timings(self, data: bytes) -> bool:
        """Start from timings that were kept; b'': from none. Returns whether they were accepted.

        TensorRT refuses timings of another version or GPU.
        """

    @abc.abstractmethod
    def run(self, progress: Progress) -> bytes:
        """Build the plan, which takes seconds to minutes. Raises UserError with the reasons if
        TensorRT gives none. progress: where it is reported, if the flavour does so."""

    @abc.abstractmethod
    def read_timings(self, other: bytes) -> bytes:
        """The timings after a build, merged with those of `other` (b'': none)."""


class LoadedPlan(abc.ABC):
    """A plan on the GPU."""

    @property
    @abc.abstractmethod
    def tensors(self) -> list[IoTensor]:
        """Its inputs and outputs, in the plan's order."""

    @abc.abstractmethod
    def read_format(self, name: str) -> str:
        """The layout of a tensor: 'LINEAR', 'CHW4' or 'HWC8'."""

    @abc.abstractmethod
    def describe_layers(self) -> Any:
        """What TensorRT's engine inspector says of each layer, parsed from its JSON."""

    @abc.abstractmethod
    def create_context(self, stream: int) -> Context:
        """A context, for one batch at a time. stream: handle of the CUDA stream that it will run
        on. Raises UserError if there is not enough memory."""


class Context(abc.ABC):
    """Runs batches of a loaded plan. Each method raises UserError with TensorRT's reason."""

    @abc.abstractmethod
    def set_shape(self, name: str, shape: Sequence[int]) -> None:
        """Set the shape of an input, which the plan's profile must allow."""

    @abc.abstractmethod
    def set_address(self, name: str, address: int) -> None:
        """Set where a tensor is in device memory."""

    @abc.abstractmethod
    def execute(self, stream: int) -> None:
        """Enqueue one batch on a CUDA stream, given its handle. Returns at once."""
