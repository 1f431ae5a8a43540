"""Stands in for TensorRT 8.6, 10 and 11, which cannot be installed where the tests run.

A stand-in has the names that its version has, and no others: a call that 11 has removed fails.
CALLS and the plan that it "builds" hold what it was told. It knows nothing of networks.
It is written to tensorrt/__init__.py of a folder on sys.path, with a version for @VERSION@.
"""

import enum
import json
import os
import sys
import time

__version__ = "@VERSION@"
MAJOR = int(__version__.split(".")[0])
HAS_TILING = [int(part) for part in __version__.split(".")[:2]] >= [10, 8]
CALLS = []


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5


FLAGS = ["TF32", "REFIT"]
FLAGS += ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"] * (
    MAJOR < 11
)
BuilderFlag = enum.Enum("BuilderFlag", FLAGS)
CREATION = {8: ["EXPLICIT_BATCH"], 10: ["EXPLICIT_BATCH", "STRONGLY_TYPED"], 11: []}
NetworkDefinitionCreationFlag = enum.IntEnum(
    "NetworkDefinitionCreationFlag", {name: n for n, name in enumerate(CREATION[min(MAJOR, 11)])}
)
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["DETAILED"])
LayerInformationFormat = enum.Enum("LayerInformationFormat", ["JSON"])
TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
TensorFormat = enum.IntEnum("TensorFormat", ["LINEAR", "CHW4", "HWC8"], start=0)
if HAS_TILING:
    TilingOptimizationLevel = enum.Enum(
        "TilingOptimizationLevel", ["NONE", "FAST", "MODERATE", "FULL"], start=0
    )
if MAJOR == 8:
    PreviewFeature = enum.Enum("PreviewFeature", ["PROFILE_SHARING_0806"])


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


if MAJOR >= 10:

    class IProgressMonitor:
        pass


class Tensor:
    def __init__(self, name, dtype, shape=(-1, 4)):
        self.name, self.dtype, self.shape = name, dtype, shape


class Layer:
    num_outputs = 1

    def __init__(self, name, dtype):
        self.name, self.output, self.asked = name, Tensor("t", dtype), []

    def get_output(self, index):
        return self.output

    def set_output_type(self, index, dtype):
        self.asked.append(("output", dtype.name))

    def __setattr__(self, name, value):
        if name == "precision":
            self.asked.append(("precision", value.name))
        else:
            object.__setattr__(self, name, value)


class Network:
    def __init__(self):
        # The types that are shown say nothing: all that is no integer is FLOAT.
        self.layers = [
            Layer("convolution", DataType.FLOAT),
            Layer("softmax", DataType.FLOAT),
            Layer("topk", DataType.INT32),
        ]
        self.input = Tensor("images", DataType.UINT8, (-1, 8, 8, 3))
        self.num_layers = len(self.layers)
        self.get_layer = self.layers.__getitem__
        self.num_inputs = self.num_outputs = 1

    def get_input(self, index):
        return self.input

    def get_output(self, index):
        return Tensor("class", DataType.INT32, (-1,))


class OnnxParser:
    num_errors = 0

    def __init__(self, network, logger):
        self.network = network

    def parse(self, model):
        CALLS.append(("parse", len(model)))
        return True


class Profile:
    def set_shape(self, name, least, best, most):
        CALLS.append(("shapes", name, least, best, most))


class TimingCache:
    def __init__(self, timings):
        self.timings = timings

    def combine(self, other, ignore_mismatch):
        self.timings = sorted({*self.timings, *other.timings})
        return True

    def serialize(self):
        return json.dumps(self.timings).encode()


class Config:
    def __init__(self):
        self.flags, self.profiles, self.previews = {"TF32"}, [], set()

    def __setattr__(self, name, value):
        known = ["flags", "profiles", "previews", "cache", "profiling_verbosity"]
        known += ["builder_optimization_level", "max_aux_streams"]
        known += ["progress_monitor"] * (MAJOR >= 10) + ["tiling_optimization_level"] * HAS_TILING
        if name not in known:
            raise AttributeError(name)
        object.__setattr__(self, name, value)

    def set_flag(self, flag):
        self.flags.add(flag.name)

    if MAJOR == 8:

        def set_preview_feature(self, feature, is_on):
            assert is_on
            self.previews.add(feature.name)

    def clear_flag(self, flag):
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool, size):
        CALLS.append(("pool", pool.name, size))

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data):
        try:
            return TimingCache(json.loads(data or b"[]"))
        except ValueError:
            return None

    def set_timing_cache(self, cache, ignore_mismatch):
        CALLS.append(("timings", list(cache.timings), ignore_mismatch))
        self.cache = cache
        return "another GPU" not in cache.timings

    def get_timing_cache(self):
        return self.cache


class Builder:
    def __init__(self, logger):
        self.logger = logger
        if os.environ.get("FAKE_NO_DRIVER"):
            code = os.environ["FAKE_NO_DRIVER"]  # as 8.6.1 says it
            logger.log(ILogger.Severity.ERROR, f"CUDA initialization failure with error: {code}")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags=0):
        CALLS.append(("network", flags))
        return Network()

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        CALLS.append(("flags", sorted(config.flags)))
        tiling = getattr(config, "tiling_optimization_level", None)
        levels = ("builder_optimization_level", "max_aux_streams")
        told = [getattr(config, name, None) for name in levels]
        CALLS.append(("levels", *told, tiling and tiling.name))
        CALLS.append(("asked", [layer.asked for layer in network.layers]))
        self.logger.log(ILogger.Severity.WARNING, "a warning " + "w" * 3000)
        for number in range(1000):
            self.logger.log(ILogger.Severity.INFO, f"line {number}")
            self.logger.log(ILogger.Severity.VERBOSE, "never kept")
        # What a build that fails says: [[severity, message], ...].
        said = json.loads(os.environ.get("FAKE_BUILD_FAILS", "[]"))
        for severity, message in said:
            self.logger.log(ILogger.Severity[severity], message)
        if said:
            return None
        steps = int(os.environ.get("FAKE_STEPS", "3"))
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building", None, steps)
        for step in range(steps):
            time.sleep(0.01)
            if monitor is not None and not monitor.step_complete("Building", step):
                print("the stand-in has stopped", file=sys.stderr)
                return None
        if monitor is not None:
            monitor.phase_finish("Building")
        config.cache.timings.append(f"timing {len(config.cache.timings)}")
        CALLS.append(("previews", sorted(config.previews)))
        CALLS.append(("formats", network.input.allowed_formats))
        return b"ptrt" + json.dumps(CALLS).encode()


class Inspector:
    def get_engine_information(self, kind):
        return json.dumps({"Layers": [{"Name": "convolution"}]})


class Engine:
    num_io_tensors = 2

    def create_engine_inspector(self):
        return Inspector()

    def create_execution_context(self, *arguments):
        CALLS.append(("context", arguments))
        self.contexts = getattr(self, "contexts", 0) + 1
        return Context(has_profile=MAJOR > 8 or self.contexts == 1)

    def get_tensor_format(self, name):
        return TensorFormat.LINEAR

    def get_tensor_name(self, index):
        return ["images", "class"][index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "images" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return DataType.UINT8 if name == "images" else DataType.INT32

    def get_tensor_shape(self, name):
        return (-1, 8, 8, 3) if name == "images" else (-1,)


class Context:
    """Of 8.6, only an engine's first context has a profile before it is given one."""

    def __init__(self, has_profile):
        self.has_profile = has_profile

    def set_optimization_profile_async(self, profile, stream):
        self.has_profile = profile == 0
        return self.has_profile

    def set_input_shape(self, name, shape):
        return shape[0] <= 4

    def set_tensor_address(self, name, address):
        return address % 256 == 0

    def execute_async_v3(self, stream):
        return self.has_profile and stream != 0


class Runtime:
    def __init__(self, logger):
        self.logger = logger

    def deserialize_cuda_engine(self, plan):
        if plan[:4] == b"ptrt":
            return Engine()
        self.logger.log(ILogger.Severity.ERROR, "not a plan")
        self.logger.log(ILogger.Severity.ERROR, "a consequence")
        return None
