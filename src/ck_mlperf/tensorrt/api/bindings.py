"""NVIDIA's own Python API, which TensorRT 8.6, 10, 11 and TensorRT for RTX have in common.

The families override the hooks at the end of `Bindings`.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt.api.callbacks import make_log, make_monitor
from ck_mlperf.tensorrt.api.interface import Build, Context, Flavour, IoTensor, LoadedPlan
from ck_mlperf.tensorrt.causes import add_advice, advise
from ck_mlperf.tensorrt.names import MODULE

if TYPE_CHECKING:
    import tensorrt

    from ck_mlperf.tensorrt.key import PlanKey
    from ck_mlperf.tensorrt.progress import Progress

# What TensorRT's ONNX parsers say of an operator that they do not have.
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


class Bindings(Flavour):
    """A TensorRT that is a Python module."""

    name = MODULE
    distributions: ClassVar[tuple[str, ...]] = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
    library = "libnvinfer"

    @functools.cached_property
    def trt(self) -> Any:
        """The module. Raises UserError if its libraries cannot be loaded."""
        try:
            module = importlib.import_module(self.name)
        except (ImportError, OSError, RuntimeError) as error:
            reason = add_advice(str(error), [str(error)], [], self)
            raise UserError(f"{self.title} is installed but does not load: {reason}") from error
        if module.__version__ != self.version:
            raise UserError(
                f"{self.name} says that it is {module.__version__}, its files say {self.version}: "
                "two installations are in one folder. Remove both, then install one"
            )
        return module

    def take_log(self) -> list[tuple[str, str]]:
        log = make_log(self.trt)
        messages: list[tuple[str, str]] = log.messages
        log.messages = []
        return messages

    def _take_problems(self) -> tuple[list[str], list[str]]:
        """The errors, the cause first, and the warnings since the last call."""
        messages = self.take_log()
        errors = [message for severity, message in messages if severity in _SEVERE]
        return errors, [message for severity, message in messages if severity == "WARNING"]

    def parse(self, model: bytes, path: Path) -> Build:
        self.take_log()
        try:
            builder = self.trt.Builder(make_log(self.trt))
        except (TypeError, RuntimeError) as error:  # pybind's word for a null pointer
            raise self.describe_failure("cannot start", error) from error
        network = builder.create_network(self.network_flags())
        parser = self.trt.OnnxParser(network, make_log(self.trt))
        if not parser.parse(model):
            raise self._describe_parsing(parser, path)
        return PythonBuild(self, path, builder, network)

    def load_plan(self, plan: bytes) -> LoadedPlan:
        self.take_log()
        try:
            engine = self.trt.Runtime(make_log(self.trt)).deserialize_cuda_engine(plan)
        except (TypeError, RuntimeError) as error:
            raise self.describe_failure("cannot load the plan", error) from error
        if engine is None:
            raise self.describe_failure("cannot load the plan")
        return PythonPlan(self, engine)

    def describe_failure(self, what: str, error: Exception | None = None) -> UserError:
        """The error for the user, from what TensorRT has logged."""
        errors, warnings = self._take_problems()
        errors = errors or ([str(error)] if error else [])
        reason = errors[0] if errors else "it gives no reason"
        return UserError(f"{self.title} {what}: {add_advice(reason, errors, warnings, self)}")

    def describe_failed_build(self, what: str) -> UserError:
        """The error for the user if a build gave no plan, from what TensorRT has logged."""
        errors, warnings = self._take_problems()
        advice = advise(errors, warnings, self, building=True)
        reasons = "\n  ".join(errors or ["it gives no reason"])
        return UserError(f"{self.title} could not build {what}:\n  {reasons}\n{advice}".strip())

    def _describe_parsing(self, parser: tensorrt.OnnxParser, path: Path) -> UserError:
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        lines = [_describe_parser_error(error) for error in errors] or self._take_problems()[0]
        text = "\n  ".join(dict.fromkeys(lines))
        advice = advise(lines, [], self)
        # 8.6 has no code for operators; it says "No importer registered for op: X".
        known = [text, *(str(error.code()) for error in errors)]
        if not advice and any(map(_UNSUPPORTED.search, known)):
            advice = (
                "Replace these operators in the model, or run it with ONNX Runtime (tags "
                "model,onnx in place of model,tensorrt)"
            )
        return UserError(
            f"{path}: {self.title} does not support this model:\n  {text}\n{advice}".strip()
        )

    # What the families override

    def network_flags(self) -> int:
        """How a network is created."""
        return 0

    def set_target(self, config: tensorrt.IBuilderConfig, key: PlanKey) -> None:
        """Say for which GPUs to build, where that is not the one that is there."""

    def create_context(
        self, engine: tensorrt.ICudaEngine, stream: int
    ) -> tensorrt.IExecutionContext:
        """`LoadedPlan.create_context`."""
        return self.check_context(engine.create_execution_context())

    def check_context(
        self, context: tensorrt.IExecutionContext | None
    ) -> tensorrt.IExecutionContext:
        if context is None:
            raise self.describe_failure("cannot make an execution context")
        return context


class PythonBuild(Build):
    """A network and the builder's configuration for it."""

    def __init__(
        self,
        flavour: Bindings,
        path: Path,
        builder: tensorrt.Builder,
        network: tensorrt.INetworkDefinition,
    ) -> None:
        self._flavour = flavour
        self._path = path
        self._builder = builder
        self._what = str(path)
        self.network = network
        self.config = builder.create_builder_config()

    @property
    def tensors(self) -> list[IoTensor]:
        network = self.network
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        return [
            IoTensor(tensor.name, number < len(inputs), _name_dtype(tensor.dtype), _shape(tensor))
            for number, tensor in enumerate([*inputs, *outputs])
        ]

    def configure(self, key: PlanKey, float32_nodes: Collection[str] = ()) -> None:
        api, config, options = self._flavour.trt, self.config, key.options
        self._what = f"{self._path} for {key.precision}"
        for name in options["flags"]:
            config.set_flag(getattr(api.BuilderFlag, name))
        if "TF32" not in options["flags"]:
            config.clear_flag(api.BuilderFlag.TF32)
        if "PREFER_PRECISION_CONSTRAINTS" in options["flags"]:
            self._keep_float32(float32_nodes)
        for name in options["previews"]:
            config.set_preview_feature(getattr(api.PreviewFeature, name), True)
        self._allow_formats(options["input_formats"])
        config.profiling_verbosity = getattr(api.ProfilingVerbosity, options["profiling_verbosity"])
        if options["workspace_bytes"] is not None:
            config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, options["workspace_bytes"])
        if options["builder_level"] is not None:
            config.builder_optimization_level = options["builder_level"]
        if options["aux_streams"] is not None:
            config.max_aux_streams = options["aux_streams"]
        if options["tiling_level"] is not None:
            level = api.TilingOptimizationLevel(options["tiling_level"])
            config.tiling_optimization_level = level
        self._flavour.set_target(config, key)
        self._add_profile(key)

    def use_timings(self, data: bytes) -> bool:
        cache = self.config.create_timing_cache(data)
        if cache is not None and self.config.set_timing_cache(cache, False):
            return True
        self._flavour.take_log()
        self.config.set_timing_cache(self.config.create_timing_cache(b""), False)
        return False

    def run(self, progress: Progress) -> bytes:
        if self._flavour.reports_progress:
            monitor = make_monitor(self._flavour.trt, progress)  # must live as long as the build
            self.config.progress_monitor = monitor
        plan = self._builder.build_serialized_network(self.network, self.config)
        if plan is None:
            raise self._flavour.describe_failed_build(self._what)
        return bytes(plan)

    def read_timings(self, other: bytes) -> bytes:
        cache = self.config.get_timing_cache()
        more = self.config.create_timing_cache(other) if other else None
        if more is not None:
            cache.combine(more, False)
        return bytes(cast(bytes, cache.serialize()))

    def _allow_formats(self, input_formats: dict[str, list[str]]) -> None:
        """Let the builder choose the layout of the input among those that samples may have."""
        for index in range(self.network.num_inputs):
            tensor = self.network.get_input(index)
            formats = ("LINEAR", *input_formats.get(tensor.dtype.name, ()))
            numbers = [int(getattr(self._flavour.trt.TensorFormat, name)) for name in formats]
            tensor.allowed_formats = sum(1 << number for number in numbers)

    def _keep_float32(self, float32_nodes: Collection[str]) -> None:
        """Weakly typed: ask for these nodes in float32.

        The types of the parsed network do not tell which: 8.6 calls all of it float32.
        """
        float32 = self._flavour.trt.DataType.FLOAT
        for index in range(self.network.num_layers):
            layer = self.network.get_layer(index)
            if layer.name in float32_nodes:
                layer.precision = float32
                for output in range(layer.num_outputs):
                    if layer.get_output(output).dtype == float32:
                        layer.set_output_type(output, float32)

    def _add_profile(self, key: PlanKey) -> None:
        """Say which batches are to come, if the model leaves the batch free."""
        profile = self._builder.create_optimization_profile()
        is_free = False
        for index in range(self.network.num_inputs):
            tensor = self.network.get_input(index)
            batch, *sample = _shape(tensor)
            if -1 in sample:
                raise UserError(
                    f"{self._path}: input {tensor.name} leaves more free than the batch: "
                    f"{(batch, *sample)}. Fix the size of its images when you export the model"
                )
            if batch == -1:
                is_free = True
                sizes = [(size, *sample) for size in (1, key.opt_batch, key.max_batch)]
                profile.set_shape(tensor.name, *cast(Any, sizes))
            elif batch != key.max_batch:
                raise UserError(
                    f"{self._path} has a fixed batch of {batch}: give --max-batch {batch}, or "
                    "export the model with a free batch"
                )
        if is_free and self.config.add_optimization_profile(profile) < 0:
            raise UserError(
                f"{self._path}: TensorRT does not support batches of 1 to {key.max_batch}"
            )


class PythonPlan(LoadedPlan):
    """An ICudaEngine."""

    def __init__(self, flavour: Bindings, engine: tensorrt.ICudaEngine) -> None:
        self._flavour = flavour
        self._engine = engine

    @property
    def tensors(self) -> list[IoTensor]:
        engine, is_input = self._engine, self._flavour.trt.TensorIOMode.INPUT
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [
            IoTensor(
                name,
                engine.get_tensor_mode(name) == is_input,
                _name_dtype(engine.get_tensor_dtype(name)),
                tuple(map(int, cast(Sequence[int], engine.get_tensor_shape(name)))),
            )
            for name in names
        ]

    def read_format(self, name: str) -> str:
        return str(self._engine.get_tensor_format(name).name)

    def describe_layers(self) -> Any:
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._flavour.trt.LayerInformationFormat.JSON)
        return json.loads(text)

    def create_context(self, stream: int) -> Context:
        context = self._flavour.create_context(self._engine, stream)
        return PythonContext(self._flavour, context)


class PythonContext(Context):
    """An IExecutionContext."""

    def __init__(self, flavour: Bindings, context: tensorrt.IExecutionContext) -> None:
        self._flavour = flavour
        self._context = context

    def set_shape(self, name: str, shape: Sequence[int]) -> None:
        if not self._context.set_input_shape(name, tuple(shape)):
            raise self._flavour.describe_failure(f"refuses shape {tuple(shape)} for {name}")

    def set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._flavour.describe_failure(f"refuses address {address:#x} for {name}")

    def execute(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise self._flavour.describe_failure("could not start a batch")


def _name_dtype(dtype: Any) -> str:
    """numpy's name of a DataType."""
    name = str(dtype.name)
    return _DTYPES.get(name, name.lower())


def _shape(tensor: tensorrt.ITensor) -> tuple[int, ...]:
    return tuple(map(int, cast(Sequence[int], tensor.shape)))


def _describe_parser_error(error: Any) -> str:
    """One line. 8.6 gives a node's number, later versions its name and operator."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    node = f"node {name!r}" if name else f"node number {error.node()}"
    return f"{node}{f' ({operator})' if operator else ''}: {error.desc().strip()}"
