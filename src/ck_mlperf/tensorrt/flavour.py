"""TensorRT 8.6, 10 and 11, and TensorRT for RTX: everything in which they differ is in this file.

docs/tensorrt.md has the table of what each runs on, and the reasons. A flavour is named as Python
imports it: 'tensorrt' or 'tensorrt_rtx'. Nothing is imported until it is needed: to know whether a
plan can be reused takes the version only.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt.causes import Situation, advise

if TYPE_CHECKING:
    import tensorrt

    from ck_mlperf.tensorrt.progress import Progress

PRECISIONS = ("fp32", "tf32", "fp16", "int8")

# What `pip install` brings a flavour, and what it runs on, for who has to choose.
FLAVOURS = {
    "tensorrt": (
        "pip install tensorrt-cu13 (or -cu12, by the driver's CUDA version; 11 or 10, compute "
        "capability 7.5 and newer), or, for a GTX 1080 and others down to compute capability 6.0, "
        "pip install tensorrt==8.6.1 (Python up to 3.11); all fetch their libraries from NVIDIA's "
        "own package index"
    ),
    "tensorrt_rtx": (
        "pip install tensorrt-rtx-cu13 (or -cu12, by the driver's CUDA version): GeForce and RTX "
        "GPUs of compute capability 7.5, 8.0, 8.6, 8.9 and 12.x; it builds plans without a GPU too"
    ),
}

# TensorRT for RTX 1.7 builds for these: its enumeration ComputeCapability.
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
_TURING = "7.5"

# What TensorRT's ONNX parsers say of an operator that they have not.
_UNSUPPORTED = re.compile(r"UNSUPPORTED|[Nn]o importer registered|not supported|[Uu]nsupported")
_SEVERE = ("INTERNAL_ERROR", "ERROR")
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


# In which layouts a plan may take its input, besides row by row: the builder takes the fastest for
# its first layer. Each has the colours of a pixel side by side, and zeros behind them.
_INPUT_FORMATS = {"INT8": ("CHW4",), "HALF": ("CHW4", "HWC8")}
# Lets the contexts of 8.6 share one profile: else only the first can run.
_SHARED_PROFILE = "PROFILE_SHARING_0806"


class _Api(Protocol):
    """The names of the module that are used here, as all flavours have them."""

    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    DataType: type[tensorrt.DataType]
    ILogger: type[tensorrt.ILogger]
    LayerInformationFormat: type[tensorrt.LayerInformationFormat]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    ProfilingVerbosity: type[tensorrt.ProfilingVerbosity]
    Runtime: type[tensorrt.Runtime]
    TensorFormat: type[tensorrt.TensorFormat]
    TensorIOMode: type[tensorrt.TensorIOMode]


@dataclasses.dataclass(frozen=True)
class IoTensor:
    """An input or output of a plan. dtype: numpy's name. shape: -1 where the batch is free."""

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


class Flavour:
    """One installed TensorRT.

    name: as imported. version: the whole of it. title: both, as a person says them.
    notes: what the user should know of this version.
    """

    def __init__(self, name: str, version: str) -> None:
        """Raises UserError where this version is none that the code knows."""
        self.name = name
        self.version = version
        self.is_rtx = name == "tensorrt_rtx"
        self.title = f"{'TensorRT for RTX' if self.is_rtx else 'TensorRT'} {version}"
        self.notes: list[str] = []
        numbers = re.findall(r"\d+", version)[:2]
        self._release = (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 0)
        major, newest = self._release[0], 1 if self.is_rtx else 11
        if major == 0 or (not self.is_rtx and (self._release < (8, 6) or major == 9)):
            raise UserError(
                f"{self.title} is not one that plans are built with here: want 8.6, 10 or 11. "
                f"Install another: {FLAVOURS[name]}"
            )
        if major > newest:
            self.notes.append(
                f"{self.title} is newer than what this was written for ({newest}.x): "
                f"it is used as if it were {newest}"
            )

    # What can be said without importing it

    @property
    def is_strongly_typed(self) -> bool:
        """Whether the types in the ONNX file are what runs; 8.6 has hints and builder flags."""
        return self.is_rtx or self._release[0] >= 10

    @property
    def has_progress(self) -> bool:
        """Whether a build reports its progress and can be stopped; 8.6's Python API cannot."""
        return self.is_rtx or self._release[0] >= 10

    @property
    def has_timing_cache(self) -> bool:
        """Whether timings can be kept. TensorRT for RTX times nothing when it builds."""
        return not self.is_rtx

    @property
    def captures_graphs(self) -> bool:
        """Whether the caller may capture a batch into a CUDA graph.

        TensorRT for RTX compiles kernels while it runs and captures by itself (`create_context`).
        """
        return not self.is_rtx

    def list_flags(self, precision: str) -> tuple[str, ...]:
        """The builder flags that are set for `precision`, by name. TF32 is cleared where absent.

        fp32 is exact: without TF32. The others have parts in float32 (softmax, what was not
        quantised), and TF32's 10 bits of mantissa are what fp16 has.
        """
        flags = () if precision == "fp32" else ("TF32",)
        if not self.is_strongly_typed:
            if precision == "fp16":
                return ("FP16", "PREFER_PRECISION_CONSTRAINTS", *flags)
            if precision == "int8":  # what is not quantised runs in float16
                return ("INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS", *flags)
        return flags

    def list_options(self, precision: str, limits: Mapping[str, int | None]) -> dict[str, Any]:
        """What else a build depends on, for the plan's key. limits: see `create_config`.

        Raises UserError where this version does not take a limit.
        """
        for name, most in (("builder_level", 5), ("tiling_level", 3), ("aux_streams", 64)):
            value = limits[name]
            if value is not None and not 0 <= value <= most:
                raise UserError(f"{name} {value}: want 0 to {most}")
        if limits["tiling_level"] is not None and (self.is_rtx or self._release < (10, 8)):
            raise UserError(f"{self.title} has no tiling_level: TensorRT 10.8 and newer have one")
        return {
            "typing": "strong" if self.is_strongly_typed else "weak",
            "flags": list(self.list_flags(precision)),
            "previews": [_SHARED_PROFILE] if self._release[0] == 8 else [],
            "input_formats": {name: list(formats) for name, formats in _INPUT_FORMATS.items()},
            "profiling_verbosity": "DETAILED",
            **limits,
        }

    def choose_gpu(
        self, capabilities: Sequence[str] | None, find: Callable[[], list[Gpu]]
    ) -> dict[str, Any]:
        """What a plan is built for, as its key says it.

        capabilities: compute capabilities that were asked for. find: `find_gpus`. Raises UserError
        where this flavour cannot build for that.
        """
        if not self.is_rtx:
            return self._choose_present_gpu(capabilities, find)
        if capabilities is not None:
            return {"compute_capabilities": _sort_capabilities(capabilities)}
        gpus = find()
        present = [gpu.compute_capability for gpu in gpus]
        if not present:
            return {"compute_capabilities": list(self._default_capabilities)}
        known = [capability for capability in present if capability in RTX_CAPABILITIES]
        if not known:
            raise UserError(
                f"{self.title} does not run on {', '.join(map(str, gpus))}: want compute "
                f"capability {' or '.join(RTX_CAPABILITIES)}. Use TensorRT itself "
                f"({FLAVOURS['tensorrt']}), run the ONNX model with ONNX Runtime, or, to build for "
                "another machine, say for which: --compute-capabilities 8.6,8.9"
            )
        return {"compute_capabilities": _sort_capabilities(known)}

    @property
    def _default_capabilities(self) -> tuple[str, ...]:
        """What is built for where there is no GPU: all but Turing, which is built for alone."""
        if self._release < (1, 7):
            return ("8.6", "8.9", "12.0")
        return tuple(capability for capability in RTX_CAPABILITIES if capability != _TURING)

    def _choose_present_gpu(
        self, capabilities: Sequence[str] | None, find: Callable[[], list[Gpu]]
    ) -> dict[str, Any]:
        if capabilities is not None:
            raise UserError(
                f"--compute-capabilities: {self.title} builds for the GPU that is there. Leave the "
                "option out, or take the flavour tensorrt_rtx"
            )
        gpus = find()
        if not gpus:
            raise UserError(
                f"{self.title} builds a plan on the GPU that will run it, and there is none here "
                "(the driver names none). Build on the machine that has it, or take the flavour "
                f"tensorrt_rtx, which needs none: {FLAVOURS['tensorrt_rtx']}"
            )
        if len(gpus) > 1:
            raise UserError(
                f"this machine has different GPUs, {' and '.join(map(str, gpus))}, and a plan fits "
                "one kind. Choose with CUDA_DEVICE_ORDER=PCI_BUS_ID and CUDA_VISIBLE_DEVICES=0 "
                "(the index that nvidia-smi shows)"
            )
        gpu = gpus[0]
        least = self._least_capability
        if tuple(map(int, gpu.compute_capability.split("."))) < least:
            raise UserError(
                f"{self.title} does not run on {gpu}: it wants {least[0]}.{least[1]} or newer. "
                f"Install an older one: {FLAVOURS['tensorrt']}"
            )
        return {"name": gpu.name, "compute_capability": gpu.compute_capability}

    @property
    def _least_capability(self) -> tuple[int, int]:
        """The oldest GPUs that this version runs on; sources in docs/tensorrt.md."""
        if self._release[0] == 8:
            return (5, 0)
        return (7, 0) if self._release < (10, 5) else (7, 5)

    # The module

    @functools.cached_property
    def trt(self) -> _Api:
        """The module itself, imported. Raises UserError where its libraries cannot be loaded."""
        try:
            module = importlib.import_module(self.name)
        except (ImportError, OSError, RuntimeError) as error:
            reason = _add_advice(str(error), [str(error)], [], self._situation())
            raise UserError(f"{self.title} is installed and cannot be loaded: {reason}") from error
        if module.__version__ != self.version:
            raise UserError(
                f"{self.name} says that it is {module.__version__}, its files say {self.version}: "
                "two installations lie over each other. Remove both, then install one"
            )
        return cast(_Api, module)

    @property
    def log(self) -> Log:
        """What the library said. One for all: TensorRT keeps the first logger it is given."""
        log: Log = _make_log(cast(Hashable, self.trt))
        return log

    # Building

    def create_builder(self) -> tensorrt.Builder:
        """Raises UserError where TensorRT cannot start: no driver, no GPU."""
        try:
            return self.trt.Builder(cast("tensorrt.ILogger", self.log))
        except (TypeError, RuntimeError) as error:  # pybind's word for a null pointer
            raise self._describe_failure("cannot start", error) from error

    def parse(
        self, builder: tensorrt.Builder, model: bytes, path: Path
    ) -> tensorrt.INetworkDefinition:
        """The network of a serialised ONNX model. Raises UserError that names the nodes at fault.

        path: of the model, for the messages.
        """
        flags = 0
        if not self.is_rtx:
            creation = self.trt.NetworkDefinitionCreationFlag
            if self._release[0] == 8:
                flags = 1 << int(creation.EXPLICIT_BATCH)
            elif self._release[0] == 10:  # later there is no other
                flags = 1 << int(creation.STRONGLY_TYPED)
        network = builder.create_network(flags)
        parser = self.trt.OnnxParser(network, cast("tensorrt.ILogger", self.log))
        if not parser.parse(model):
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            lines = [_describe_parser_error(error) for error in errors] or self.log.take_errors()
            text = "\n  ".join(dict.fromkeys(lines))
            advice = advise(lines, [], self._situation())
            # 8.6 has no code for operators; it says "No importer registered for op: X".
            known = [text, *(str(error.code()) for error in errors)]
            if not advice and any(map(_UNSUPPORTED.search, known)):
                advice = (
                    "Replace these operators in the model, or run it with ONNX Runtime (tags "
                    "model,onnx in place of model,tensorrt)"
                )
            raise UserError(
                f"{path}: {self.title} cannot take this model:\n  {text}\n{advice}".strip()
            )
        return network

    def create_config(
        self,
        builder: tensorrt.Builder,
        network: tensorrt.INetworkDefinition,
        precision: str,
        gpu: Mapping[str, Any],
        limits: Mapping[str, int | None],
        float32_nodes: Collection[str] = (),
    ) -> tensorrt.IBuilderConfig:
        """The builder's configuration for a network, without a profile.

        gpu: the key's part. limits, each TensorRT's own where it is None: workspace_bytes, the most
        device memory that a layer may use; builder_level, 0 to 5, how long to search for kernels;
        aux_streams, how many streams a context may use beside its own; tiling_level, 0 to 3.
        float32_nodes: names of those that stay in float32 where the builder chooses types.
        """
        api = self.trt
        config = builder.create_builder_config()
        flags = self.list_flags(precision)
        for name in flags:
            config.set_flag(getattr(api.BuilderFlag, name))
        if "TF32" not in flags:
            config.clear_flag(api.BuilderFlag.TF32)
        if "PREFER_PRECISION_CONSTRAINTS" in flags:
            self._keep_float32(network, float32_nodes)
        self._allow_formats(network)
        if self._release[0] == 8:
            preview = cast(Any, api).PreviewFeature  # not in tensorrt-stubs: only 8.6 has it
            config.set_preview_feature(getattr(preview, _SHARED_PROFILE), True)
        config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
        if limits["workspace_bytes"] is not None:
            config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, limits["workspace_bytes"])
        if limits["builder_level"] is not None:
            config.builder_optimization_level = limits["builder_level"]
        if limits["aux_streams"] is not None:
            config.max_aux_streams = limits["aux_streams"]
        if limits["tiling_level"] is not None:
            levels = cast(Any, api).TilingOptimizationLevel
            config.tiling_optimization_level = levels(limits["tiling_level"])
        if self.is_rtx:
            self._set_capabilities(config, gpu["compute_capabilities"])
        return config

    def _allow_formats(self, network: tensorrt.INetworkDefinition) -> None:
        """Let the builder choose the layout of the input among those that samples come in."""
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            formats = ("LINEAR", *_INPUT_FORMATS.get(tensor.dtype.name, ()))
            numbers = [int(getattr(self.trt.TensorFormat, name)) for name in formats]
            tensor.allowed_formats = sum(1 << number for number in numbers)

    def _keep_float32(
        self, network: tensorrt.INetworkDefinition, float32_nodes: Collection[str]
    ) -> None:
        """Weakly typed: ask that these stay in float32.

        The types that the parsed network shows say nothing: 8.6 calls all of it float32.
        """
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.name in float32_nodes:
                layer.precision = self.trt.DataType.FLOAT
                for output in range(layer.num_outputs):
                    if layer.get_output(output).dtype == self.trt.DataType.FLOAT:
                        layer.set_output_type(output, self.trt.DataType.FLOAT)

    def _set_capabilities(self, config: Any, capabilities: Sequence[str]) -> None:
        # Not in tensorrt-stubs: TensorRT itself has no such calls.
        known = getattr(self.trt, "ComputeCapability", None)
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            member = getattr(known, "SM" + capability.replace(".", ""), None)
            if member is None:
                raise UserError(
                    f"{self.title} does not build for compute capability {capability}. "
                    "Name others with --compute-capabilities, or install a newer version"
                )
            config.set_compute_capability(member, index)

    def watch(self, config: tensorrt.IBuilderConfig, progress: Progress) -> object:
        """Have the build report to `progress`, where it can.

        Returns what the caller must keep until the build is over.
        """
        if not self.has_progress:
            return None
        monitor = _make_monitor(self.trt, progress)
        config.progress_monitor = cast("tensorrt.IProgressMonitor", monitor)
        return monitor

    def use_timing_cache(self, config: tensorrt.IBuilderConfig, data: bytes) -> bool:
        """Start the build from timings that were kept; b'': from none. Whether they were taken.

        TensorRT refuses those of another version or GPU.
        """
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return True
        self.log.take()
        config.set_timing_cache(config.create_timing_cache(b""), False)
        return False

    def read_timing_cache(self, config: tensorrt.IBuilderConfig, other: bytes) -> bytes:
        """The timings after a build, with those of `other` (b'': none) added."""
        cache = config.get_timing_cache()
        more = config.create_timing_cache(other) if other else None
        if more is not None:
            cache.combine(more, False)
        return bytes(cast(bytes, cache.serialize()))

    # Running

    def deserialise(self, plan: bytes) -> tensorrt.ICudaEngine:
        """The engine of a plan that `plan.read_plan` has read, on the current CUDA device.

        Raises UserError with TensorRT's own reason: no driver, a GPU that the plan was not built
        for, a plan of another version or a damaged one.
        """
        self.log.take()
        try:
            runtime = self.trt.Runtime(cast("tensorrt.ILogger", self.log))
            engine = runtime.deserialize_cuda_engine(plan)
        except (TypeError, RuntimeError) as error:
            raise self._describe_failure("cannot load the plan", error) from error
        if engine is None:
            raise self._describe_failure("cannot load the plan")
        return engine

    def list_tensors(self, engine: tensorrt.ICudaEngine) -> list[IoTensor]:
        """The inputs and outputs of an engine, in the engine's order."""
        tensors = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT
            dtype = name_dtype(engine.get_tensor_dtype(name))
            shape = tuple(map(int, cast(Sequence[int], engine.get_tensor_shape(name))))
            tensors.append(IoTensor(name, is_input, dtype, shape))
        return tensors

    def read_format(self, engine: tensorrt.ICudaEngine, name: str) -> str:
        """In which layout a tensor is: 'LINEAR', 'CHW4' or 'HWC8'."""
        return str(engine.get_tensor_format(name).name)

    def create_context(
        self, engine: tensorrt.ICudaEngine, stream: int
    ) -> tensorrt.IExecutionContext:
        """A context, for one stream at a time. Raises UserError where memory does not suffice.

        stream: handle of the CUDA stream that it will be used on.
        """
        context = None
        if self.is_rtx:  # not in tensorrt-stubs
            strategy = getattr(self.trt, "CudaGraphStrategy", None)
            config: Any = engine.create_runtime_config()
            if strategy is not None:
                config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
        if context is None:
            raise self._describe_failure("cannot make an execution context")
        # 8.6 gives a profile to the first context only. All have the one there is.
        if self._release[0] == 8 and not context.set_optimization_profile_async(0, stream):
            raise self._describe_failure("cannot use the plan's profile")
        return context

    def set_shape(
        self, context: tensorrt.IExecutionContext, name: str, shape: Sequence[int]
    ) -> None:
        """Say how large an input is. Raises UserError where the profile does not allow it."""
        if not context.set_input_shape(name, tuple(shape)):
            raise self._describe_failure(f"does not take shape {tuple(shape)} for {name}")

    def set_address(self, context: tensorrt.IExecutionContext, name: str, address: int) -> None:
        """Say where in device memory a tensor is."""
        if not context.set_tensor_address(name, address):
            raise self._describe_failure(f"does not take address {address:#x} for {name}")

    def execute(self, context: tensorrt.IExecutionContext, stream: int) -> None:
        """Enqueue one batch on a CUDA stream, by its handle; returns at once."""
        if not context.execute_async_v3(stream):
            raise self._describe_failure("could not start a batch")

    def describe_layers(self, engine: tensorrt.ICudaEngine) -> Any:
        """What the engine's inspector says of each layer, as JSON holds it."""
        text = engine.create_engine_inspector().get_engine_information(
            self.trt.LayerInformationFormat.JSON
        )
        return json.loads(text)

    def describe_network(self, network: tensorrt.INetworkDefinition) -> list[IoTensor]:
        """The inputs and outputs of a network that was parsed."""
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        return [
            IoTensor(tensor.name, number < len(inputs), name_dtype(tensor.dtype), _list(tensor))
            for number, tensor in enumerate([*inputs, *outputs])
        ]

    def _describe_failure(self, what: str, error: Exception | None = None) -> UserError:
        """The error for the user, from what TensorRT has logged."""
        errors, warnings = self.log.take_problems()
        errors = errors or ([str(error)] if error else [])
        reason = errors[0] if errors else "it gives no reason"
        return UserError(
            f"{self.title} {what}: {_add_advice(reason, errors, warnings, self._situation())}"
        )

    def describe_failed_build(self, what: str) -> UserError:
        """The error for the user where TensorRT gave no plan, from what it has logged."""
        errors, warnings = self.log.take_problems()
        advice = advise(errors, warnings, self._situation(building=True))
        reasons = "\n  ".join(errors or ["it gives no reason"])
        return UserError(f"{self.title} could not build {what}:\n  {reasons}\n{advice}".strip())

    def _situation(self, building: bool = False) -> Situation:
        return Situation(self.name, self.version, FLAVOURS[self.name], building)


class Log:
    """What TensorRT says, from any of its threads, without its verbose messages."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str]] = []

    def add(self, severity: str, message: str) -> None:
        if severity != "VERBOSE":
            self._messages.append((severity, message))

    def take(self) -> list[tuple[str, str]]:
        """All (severity, message) since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def take_errors(self) -> list[str]:
        """The errors since the last call, the cause first."""
        return self.take_problems()[0]

    def take_problems(self) -> tuple[list[str], list[str]]:
        """The errors, the cause first, and the warnings since the last call."""
        messages = self.take()
        errors = [message for severity, message in messages if severity in _SEVERE]
        return errors, [message for severity, message in messages if severity == "WARNING"]


def find_version(name: str) -> str | None:
    """The version of an installed flavour, None where it is not there; without importing it.

    Reads what the module's own files assign to __version__: an installation may be a wheel, a
    Debian package or a folder on PYTHONPATH. A folder of type stubs alone is no installation.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    for path in (package / "__init__.py", package.parent / f"{name}_bindings" / "__init__.py"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = re.search(r"^__version__\s*=\s*[\"']([^\"']+)[\"']", text, re.MULTILINE)
        if found:
            return found[1]
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        situation = Situation(name, "", FLAVOURS[name])
        reason = _add_advice(str(error), [str(error)], [], situation)
        raise UserError(
            f"{name} is installed in {package} and cannot be loaded: {reason}"
        ) from error


def load_flavour(name: str | None = None) -> Flavour:
    """The installed flavour of this name; without a name, the only one that there is.

    Raises UserError where it is not installed, where two are and none was named, and where its
    version is not known here. Never another one than asked for.
    """
    if name is None:
        found = [flavour for flavour in FLAVOURS if find_version(flavour) is not None]
        if len(found) != 1:
            what = " and ".join(found) + " are both" if found else "no TensorRT is"
            advice = "Say which: --flavour tensorrt_rtx" if found else _describe_choices()
            raise UserError(f"{what} installed for this Python. {advice}")
        name = found[0]
    if name not in FLAVOURS:
        raise UserError(f"flavour {name!r}: want {' or '.join(FLAVOURS)}")
    version = find_version(name)
    if version is None:
        raise UserError(f"{name} is not installed for this Python. Get it: {FLAVOURS[name]}")
    return Flavour(name, version)


def _add_advice(
    reason: str, errors: Sequence[str], warnings: Sequence[str], situation: Situation
) -> str:
    advice = advise(errors, warnings, situation)
    return f"{reason.rstrip('.')}. {advice}" if advice else reason


def name_dtype(dtype: Any) -> str:
    """numpy's name of a DataType."""
    name = str(dtype.name)
    return _DTYPES.get(name, name.lower())


def _describe_choices() -> str:
    return "Get one: " + "; or ".join(FLAVOURS.values())


def _sort_capabilities(capabilities: Sequence[str]) -> list[str]:
    unknown = [text for text in capabilities if text not in RTX_CAPABILITIES]
    if unknown or not capabilities:
        raise UserError(
            f"compute capability {', '.join(map(repr, unknown)) or 'missing'}: "
            f"TensorRT for RTX builds for {', '.join(RTX_CAPABILITIES)}"
        )
    return [capability for capability in RTX_CAPABILITIES if capability in capabilities]


def _list(tensor: tensorrt.ITensor) -> tuple[int, ...]:
    return tuple(map(int, cast(Sequence[int], tensor.shape)))


def _describe_parser_error(error: Any) -> str:
    """One line; 8.6 gives a node's number, later versions its name and operator."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    node = f"node {name!r}" if name else f"node number {error.node()}"
    return f"{node}{f' ({operator})' if operator else ''}: {error.desc().strip()}"


@functools.cache
def _make_log(api: Any) -> Any:
    class Adapter(api.ILogger, Log):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            Log.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            self.add(severity.name, msg)

    return Adapter()


def _make_monitor(api: Any, progress: Progress) -> Any:
    class Adapter(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Adapter()
