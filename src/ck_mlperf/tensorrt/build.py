"""Build a TensorRT plan from an ONNX file, or reuse the one that is there.

    python -m ck_mlperf.tensorrt.build --model CONVERTED.onnx --output model.plan \\
        --precision fp16 --max-batch 32

The types are in the ONNX file already (`python -m ck_mlperf.models.convert`): --precision says what
it was converted to; fp32 is computed without TF32, tf32 takes the same file and allows it. Beside
the plan lies model.plan.json, which says what the plan depends on; a plan is reused only where all
of that agrees.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import hash_file
from ck_mlperf.common.locks import hold_lock
from ck_mlperf.machine.gpus import Gpu, find_gpus
from ck_mlperf.tensorrt.flavour import FLAVOURS, PRECISIONS, Flavour, load_flavour
from ck_mlperf.tensorrt.plan import (
    INPUTS,
    PlanKey,
    Sidecar,
    explain_reuse,
    is_as_built,
    judge_plan,
    measure_plan,
    recall_plan,
    write_plan,
)
from ck_mlperf.tensorrt.progress import Progress
from ck_mlperf.tensorrt.timings import cache_path, describe_last, keep_cache, note_build, use_cache

if TYPE_CHECKING:
    import onnx
    import tensorrt

# A step of TensorRT for RTX takes up to half a second for ResNet-50 in fp32.
_STOP_S = 5.0
_INTERRUPTED = 130
_MOST_INFO_LINES = 200
_MOST_INFO_CHARACTERS = 1000
# The precision of a converted ONNX file that each of ours takes.
_FILE_PRECISION = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "int8": "int8"}


@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """What to build.

    model: the ONNX file, with its recipe beside it. output: the plan. precision: one of
    PRECISIONS. max_batch: images, the most in a batch. opt_batch: the batch to tune for; None:
    max_batch. flavour: 'tensorrt' or 'tensorrt_rtx'; None: the one that is installed.
    compute_capabilities: to build for, with TensorRT for RTX; None: the GPUs that are there, or
    else all. timings: the folder in which builds leave their timings for others; None: the plan's.
    input: what the samples are, one of `plan.INPUTS`. workspace_bytes: the most device memory that
    a layer may use; None: all. builder_level, aux_streams, tiling_level: what TensorRT calls
    builder_optimization_level, max_aux_streams and tiling_optimization_level; None: its own.
    """

    model: Path
    output: Path
    precision: str
    max_batch: int
    opt_batch: int | None = None
    flavour: str | None = None
    compute_capabilities: tuple[str, ...] | None = None
    timings: Path | None = None
    workspace_bytes: int | None = None
    input: str = "uint8"
    builder_level: int | None = None
    aux_streams: int | None = None
    tiling_level: int | None = None

    @property
    def limits(self) -> dict[str, int | None]:
        """What the builder is told of its work, as `Flavour.create_config` takes it."""
        return {
            "workspace_bytes": self.workspace_bytes,
            "builder_level": self.builder_level,
            "aux_streams": self.aux_streams,
            "tiling_level": self.tiling_level,
        }


@dataclasses.dataclass(frozen=True)
class Lookup:
    """What a request comes to on this machine: its key, and why the plan there is not it."""

    flavour: Flavour
    key: PlanKey
    faults: list[str]


def look_up(
    request: BuildRequest,
    flavour: Flavour | None = None,
    find: Callable[[], list[Gpu]] = find_gpus,
    known_sha256: str | None = None,
) -> Lookup:
    """Compare the plan that is there with the request. Imports neither TensorRT nor ONNX.

    flavour: the request's, where it is loaded already. find: what finds the GPUs. known_sha256:
    the model's when the plan was built: the model and the plan are then hashed only where somebody
    has touched them since. Raises UserError where the request makes no sense on this machine.
    """
    _check_request(request)
    flavour = flavour or load_flavour(request.flavour)
    conversion, recipe_sha256 = _read_conversion(request)
    measure = measure_plan if known_sha256 is None else recall_plan
    with ThreadPoolExecutor(1) as pool:
        # hashlib lets go of the interpreter: the plan's hash and the model's overlap.
        measured = pool.submit(measure, request.output)
        onnx_sha256 = _hash_model(request.model, request.output, known_sha256)
        key = PlanKey(
            onnx_sha256=onnx_sha256,
            source_sha256=str(conversion.get("source_sha256", onnx_sha256)),
            recipe_sha256=recipe_sha256,
            flavour=flavour.name,
            version=flavour.version,
            gpu=flavour.choose_gpu(request.compute_capabilities, find),
            precision=request.precision,
            input=request.input,
            max_batch=request.max_batch,
            opt_batch=request.opt_batch or request.max_batch,
            options=flavour.list_options(request.precision, request.limits),
            calibration=conversion.get("calibration"),
        )
        faults = judge_plan(request.output, key, measured.result())
    return Lookup(flavour, key, faults)


def explain(request: BuildRequest) -> str:
    """Why the plan at `request.output` would be reused or not, in words."""
    found = look_up(request)
    return explain_reuse(found.key, found.faults)


def build_plan(
    request: BuildRequest,
    say: Callable[[str], None] = print,
    progress_stream: TextIO | None = None,
) -> bool:
    """Put the plan of `request` in place. Returns whether it was built; False: it was there.

    say: takes lines for the user. progress_stream: where to show how far it is.
    Of two processes that build the same plan, one waits for the other and reuses its work.
    Ctrl-C (KeyboardInterrupt) leaves the plan that was there, or none. Where TensorRT does not
    stop in time (8.6 cannot), this process ends with status 130.
    Raises UserError that says what TensorRT does not take, and what to do.
    """
    find = functools.cache(find_gpus)
    found = look_up(request, find=find)
    if not found.faults:
        say(f"{request.output}: {explain_reuse(found.key, [])}")
        return False
    request.output.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(request.output, say):
        found = look_up(request, found.flavour, find)  # another process may have built it
        if not found.faults:
            say(f"{request.output}: {explain_reuse(found.key, [])}")
            return False
        say(f"{request.output}: {explain_reuse(found.key, found.faults)}")
        for note in found.flavour.notes:
            say(f"note: {note}")
        _remove_unfinished(request.output)
        _build(request, found.flavour, found.key, say, progress_stream)
    return True


def _build(
    request: BuildRequest,
    flavour: Flavour,
    key: PlanKey,
    say: Callable[[str], None],
    progress_stream: TextIO | None,
) -> None:
    from ck_mlperf.models.onnx_facts import load_onnx
    from ck_mlperf.models.precision import list_float32_nodes
    from ck_mlperf.models.recipe import load_model_recipe

    started = time.perf_counter()
    recipe = dataclasses.replace(load_model_recipe(request.model), max_batch=request.max_batch)
    if request.input != "uint8" and INPUTS[request.input] != recipe.input.dtype:
        raise UserError(
            f"{request.model} takes {recipe.input.dtype}: its samples cannot be {request.input}. "
            "Leave --input out, and images are prepared on the GPU, or convert the model with "
            "--input native (or fp32)"
        )
    graph = load_onnx(request.model)
    _check_types(request, graph)
    float32_nodes = [] if flavour.is_strongly_typed else list_float32_nodes(graph)
    del graph
    model = request.model.read_bytes()
    model_bytes = len(model)
    # What is built is what was hashed, whatever happens to the file.
    key = dataclasses.replace(key, onnx_sha256=hashlib.sha256(model).hexdigest())
    flavour.log.take()
    builder = flavour.create_builder()
    network = flavour.parse(builder, model, request.model)
    del model
    config = flavour.create_config(
        builder, network, request.precision, key.gpu, request.limits, float32_nodes
    )
    _add_profile(request, key, builder, network, config)
    tensors = flavour.describe_network(network)
    notes = []
    timings = request.timings or request.output.parent
    cache = None
    if flavour.has_timing_cache:
        cache = cache_path(timings, key)
        notes += use_cache(flavour, config, cache)
    else:
        notes.append(f"timing cache: {flavour.title} times nothing when it builds and keeps none")
    last = describe_last(timings, key, model_bytes)
    if last:
        say(last)
    content = _run(request, flavour, builder, network, config, say, progress_stream)
    if cache is not None:
        keep_cache(flavour, config, cache)
    messages = flavour.log.take()
    layers = None
    try:
        layers = flavour.describe_layers(flavour.deserialise(content))
    except UserError as error:
        notes.append(f"layers: not known: {error}")
    seconds = time.perf_counter() - started
    build = {
        "seconds": round(seconds, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "log": _trim_log(messages) + [f"NOTE: {note}" for note in flavour.notes + notes],
        "layers": layers,
        "timing_cache": None if cache is None else str(cache),
    }
    sidecar = Sidecar(
        key,
        hashlib.sha256(content).hexdigest(),
        len(content),
        recipe,
        tuple(tensor for tensor in tensors if tensor.is_input),
        tuple(tensor for tensor in tensors if not tensor.is_input),
        build,
    )
    write_plan(request.output, content, sidecar)
    note_build(timings, key, model_bytes, seconds)
    say(
        f"{request.output}: built with {flavour.title} for {_describe_gpu(key.gpu)} in "
        f"{seconds:.1f} s: {len(content) / 1e6:.1f} MB, batch 1 to {key.max_batch}, "
        f"{request.precision}"
    )


def _run(
    request: BuildRequest,
    flavour: Flavour,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    say: Callable[[str], None],
    stream: TextIO | None,
) -> bytes:
    """The serialised plan."""
    progress = Progress(f"building {request.output.name}", stream)
    monitor = flavour.watch(config, progress)
    if monitor is None:
        say(
            f"{flavour.title} does not report how far it is, which may be minutes. Ctrl-C ends "
            "this process at once; nothing half-made stays"
        )
    result: list[Any] = []
    done = threading.Event()

    def build() -> None:
        try:
            result.append(builder.build_serialized_network(network, config))
        except BaseException as error:
            result.append(error)
        finally:
            done.set()

    # On a thread of its own: an exception of Ctrl-C must not rise in TensorRT's callbacks.
    threading.Thread(target=build, name="tensorrt-build", daemon=True).start()
    try:
        done.wait()
    except KeyboardInterrupt:
        progress.stop()
        with contextlib.suppress(KeyboardInterrupt):
            if monitor is not None and done.wait(_STOP_S):
                progress.close()
                raise
        _end_process()
    progress.close()
    plan = result[0]
    if isinstance(plan, BaseException):
        raise plan
    if plan is None:
        raise flavour.describe_failed_build(f"{request.model} for {request.precision}")
    return bytes(plan)


def _end_process() -> NoReturn:
    """Leave while TensorRT's threads are still at work: no exit handler could stop them."""
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(_INTERRUPTED)


def _check_request(request: BuildRequest) -> None:
    if request.precision not in PRECISIONS:
        raise UserError(f"precision {request.precision!r}: want {' or '.join(PRECISIONS)}")
    opt_batch = request.opt_batch or request.max_batch
    if not 1 <= opt_batch <= request.max_batch:
        raise UserError(
            f"batch: want 1 or more to tune for, and no more than the largest "
            f"({opt_batch} and {request.max_batch} were given)"
        )
    if request.output.is_dir():
        raise UserError(f"{request.output}: is a folder. Name the file to write")


def _read_conversion(request: BuildRequest) -> tuple[Mapping[str, Any], str | None]:
    """What the recipe beside the model says of its conversion, and the recipe's hash."""
    path = request.model.with_suffix(".json")
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON: {error}. Convert the model again") from None
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    conversion = recipe.get("conversion") if isinstance(recipe, dict) else None
    if not isinstance(conversion, dict):
        return {}, digest
    precision = conversion.get("precision")
    if precision != _FILE_PRECISION[request.precision]:
        raise UserError(
            f"{request.model} was converted to {precision}, which is not what {request.precision} "
            f"is built from. Convert the model with --precision "
            f"{_FILE_PRECISION[request.precision]} first"
        )
    return conversion, digest


def _hash_model(path: Path, plan: Path, known_sha256: str | None) -> str:
    if known_sha256 is not None:
        with contextlib.suppress(OSError):
            if is_as_built(path, plan):
                return known_sha256
    try:
        return hash_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of an .onnx file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder. Give the path of an .onnx file") from None


def _check_types(request: BuildRequest, model: onnx.ModelProto) -> None:
    """Refuse a file whose types are not those of the precision: they are what would run."""
    from ck_mlperf.models.onnx_facts import external_files

    outside = external_files(model)
    if outside:
        raise UserError(
            f"{request.model} keeps weights in other files ({', '.join(outside[:3])}), and a plan "
            "is known by one file. Save the model as one (onnx.save does unless told otherwise)"
        )
    operators = {node.op_type for node in model.graph.node}
    constants = [
        attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
    ]
    tensors = [*model.graph.initializer, *constants]
    has_half = any(tensor.data_type == tensor.FLOAT16 for tensor in tensors)
    found = "int8" if "QuantizeLinear" in operators else "fp16" if has_half else "fp32"
    if found != _FILE_PRECISION[request.precision]:
        raise UserError(
            f"{request.model} has the types of {found}, and they are what TensorRT runs. Convert "
            f"it with `python -m ck_mlperf.models.convert --precision "
            f"{_FILE_PRECISION[request.precision]}` first, or build it as {found}"
        )


def _add_profile(
    request: BuildRequest,
    key: PlanKey,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
) -> None:
    """Say which batches are to come, where the model leaves it open."""
    profile = builder.create_optimization_profile()
    is_free = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        batch, *sample = map(int, cast(Sequence[int], tensor.shape))
        if -1 in sample:
            raise UserError(
                f"{request.model}: input {tensor.name} leaves more open than the batch: "
                f"{(batch, *sample)}. Fix the side of its images when it is exported"
            )
        if batch == -1:
            is_free = True
            sizes = [(size, *sample) for size in (1, key.opt_batch, key.max_batch)]
            profile.set_shape(tensor.name, *cast(Any, sizes))
        elif batch != key.max_batch:
            raise UserError(
                f"{request.model} has a fixed batch of {batch}: give --max-batch {batch}, or "
                "export the model with a free batch"
            )
    if is_free and config.add_optimization_profile(profile) < 0:
        raise UserError(f"{request.model}: TensorRT does not take batches of 1 to {key.max_batch}")


def _remove_unfinished(plan: Path) -> None:
    """Remove what a killed build left; its names are those of `files.write_file`."""
    left = re.compile(rf"\.{re.escape(plan.name)}(\.json)?\.[a-z0-9_]{{8}}")
    for path in plan.parent.iterdir():
        if left.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _trim_log(messages: Sequence[tuple[str, str]]) -> list[str]:
    """Warnings and errors whole; of the other lines the first and the last."""
    places = [index for index, (severity, _) in enumerate(messages) if severity == "INFO"]
    half = _MOST_INFO_LINES // 2
    left_out = set(places[half:-half]) if len(places) > _MOST_INFO_LINES else set()
    lines = []
    for index, (severity, message) in enumerate(messages):
        if severity == "INFO":
            message = message[:_MOST_INFO_CHARACTERS]
        if index not in left_out:
            lines.append(f"{severity}: {message}")
        elif index == min(left_out):
            lines.append(f"NOTE: {len(left_out)} lines of information left out")
    return lines


def _describe_gpu(gpu: Mapping[str, Any]) -> str:
    capabilities = gpu.get("compute_capabilities")
    if capabilities is None:
        return f"{gpu['name']} (compute capability {gpu['compute_capability']})"
    return f"compute capability {', '.join(capabilities)}"


def parse_request(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> BuildRequest:
    """The request that a command line makes; `parser` may have options of its own."""
    parser.add_argument("--model", type=Path, required=True, metavar="CONVERTED.onnx")
    parser.add_argument("--output", "--plan", type=Path, required=True, metavar="MODEL.plan")
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    parser.add_argument("--input", choices=tuple(INPUTS), default="uint8", help="what samples are")
    parser.add_argument("--max-batch", type=int, required=True, metavar="N")
    parser.add_argument("--opt-batch", type=int, metavar="N", help="batch to tune for (N)")
    parser.add_argument("--flavour", choices=tuple(FLAVOURS), help="where several are installed")
    parser.add_argument("--compute-capabilities", metavar="8.6,8.9", help="TensorRT for RTX only")
    parser.add_argument("--timings", type=Path, metavar="FOLDER", help="what builds share")
    parser.add_argument("--workspace-mib", type=int, metavar="MIB", help="device memory per layer")
    parser.add_argument("--builder-level", type=int, metavar="0..5", help="more: slower builds")
    parser.add_argument(
        "--aux-streams", type=int, metavar="N", help="streams beside a context's own"
    )
    parser.add_argument("--tiling-level", type=int, metavar="0..3", help="TensorRT 10.8 and newer")
    options = parser.parse_args(arguments)
    capabilities = options.compute_capabilities
    mib = options.workspace_mib
    if mib is not None and mib < 1:
        raise UserError(f"--workspace-mib {mib}: want 1 or more")
    return BuildRequest(
        model=options.model,
        output=options.output,
        precision=options.precision,
        max_batch=options.max_batch,
        opt_batch=options.opt_batch,
        flavour=options.flavour,
        compute_capabilities=None if capabilities is None else tuple(capabilities.split(",")),
        timings=options.timings,
        workspace_bytes=None if mib is None else mib << 20,
        input=options.input,
        builder_level=options.builder_level,
        aux_streams=options.aux_streams,
        tiling_level=options.tiling_level,
    )


def main() -> None:
    """Build the plan that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.tensorrt.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    request = parse_request(parser, sys.argv[1:])
    build_plan(request, lambda line: print(line, flush=True), sys.stderr)


if __name__ == "__main__":
    run_main(main)
