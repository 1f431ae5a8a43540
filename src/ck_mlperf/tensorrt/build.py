"""Build a TensorRT plan from an ONNX file, or reuse the one that is there.

    python -m ck_mlperf.tensorrt.build --model CONVERTED.onnx --output model.plan \\
        --precision fp16 --max-batch 32

The ONNX file has the types already (`python -m ck_mlperf.models.convert`): --precision says what it
was converted to. fp32 is computed without TF32; tf32 uses the same file and allows it. The file
model.plan.json beside the plan says what the plan depends on; a plan is reused only if all of that
agrees.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import MOST_ONNX_BYTES, read_regular
from ck_mlperf.common.locks import hold_lock, lock_path
from ck_mlperf.machine.gpus import find_gpus
from ck_mlperf.models.precisions import PLAN_INPUTS
from ck_mlperf.tensorrt.api.interface import Build, Flavour
from ck_mlperf.tensorrt.key import describe_gpu
from ck_mlperf.tensorrt.lookup import Lookup, look_up
from ck_mlperf.tensorrt.plan_file import Sidecar, write_plan
from ck_mlperf.tensorrt.progress import Progress
from ck_mlperf.tensorrt.request import BuildRequest, parse_request
from ck_mlperf.tensorrt.timing_cache import (
    cache_path,
    describe_last,
    keep_cache,
    note_build,
    use_cache,
)

if TYPE_CHECKING:
    import onnx

    from ck_mlperf.models.recipe import ModelRecipe

# A step of TensorRT for RTX takes up to half a second for ResNet-50 in fp32.
_STOP_S = 5.0
_INTERRUPTED = 130
_MOST_INFO_LINES = 200
_MOST_INFO_CHARACTERS = 1000

Say = Callable[[str], None]


def build_plan(
    request: BuildRequest, say: Say = print, progress_stream: TextIO | None = None
) -> bool:
    """Put the plan of `request` in place. Returns whether it was built; False: it was there.

    say: takes lines for the user. progress_stream: where to show the progress.
    Of two processes that build the same plan, one waits for the other and reuses its work.
    Ctrl-C (KeyboardInterrupt) leaves the plan that was there, or none. If TensorRT does not stop in
    time (8.6 cannot), this process ends with status 130.
    Raises UserError that says what TensorRT does not support, and what to do.
    """

    def announce_wait(holder: str) -> None:
        say(f"{request.output}: waiting for the process that is building it (pid {holder})")

    find = functools.cache(find_gpus)
    found = look_up(request, find=find)
    if not found.faults:
        say(f"{request.output}: {found.explain()}")
        return False
    request.output.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(lock_path(request.output), announce_wait):
        found = look_up(request, found.flavour, find)  # another process may have built it
        say(f"{request.output}: {found.explain()}")
        if not found.faults:
            return False
        for note in found.flavour.notes:
            say(f"note: {note}")
        _remove_unfinished(request.output)
        _build(request, found, say, progress_stream)
    return True


def _build(request: BuildRequest, found: Lookup, say: Say, stream: TextIO | None) -> None:
    from ck_mlperf.models.float16 import list_float32_nodes
    from ck_mlperf.models.onnx_facts import load_onnx
    from ck_mlperf.models.recipe import load_model_recipe

    started = time.perf_counter()
    flavour = found.flavour
    recipe = dataclasses.replace(load_model_recipe(request.model), max_batch=request.max_batch)
    _check_input(request, recipe)
    model, key = read_regular(request.model, MOST_ONNX_BYTES), found.key
    model_bytes = len(model)
    if hashlib.sha256(model).hexdigest() != key.onnx_sha256:
        raise UserError(f"{request.model} has changed since it was looked up. Build again")
    graph = load_onnx(request.model, model)
    _check_types(request, graph)
    float32_nodes = [] if flavour.is_strongly_typed else list_float32_nodes(graph)
    del graph
    build = flavour.parse(model, request.model)
    del model
    build.configure(key, float32_nodes)
    notes = list(flavour.notes)
    timings = request.timings or request.output.parent
    cache = cache_path(timings, key) if flavour.has_timing_cache else None
    if cache is None:
        notes.append(f"timing cache: {flavour.title} times nothing when it builds and keeps none")
    else:
        notes += use_cache(build, flavour.title, cache)
    last = describe_last(timings, key, model_bytes)
    if last:
        say(last)
    content = _run(request, flavour, build, say, stream)
    if cache is not None:
        keep_cache(build, cache)
    messages = flavour.take_log()
    layers = None
    try:
        layers = flavour.load_plan(content).describe_layers()
    except UserError as error:
        notes.append(f"layers: not known: {error}")
    seconds = time.perf_counter() - started
    facts = {
        "seconds": round(seconds, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "log": _trim_log(messages) + [f"NOTE: {note}" for note in notes],
        "layers": layers,
        "timing_cache": None if cache is None else str(cache),
    }
    sidecar = Sidecar.of(key, content, recipe, build.tensors, facts)
    write_plan(request.output, content, sidecar)
    note_build(timings, key, model_bytes, seconds)
    say(
        f"{request.output}: built with {flavour.title} for {describe_gpu(key.gpu)} in "
        f"{seconds:.1f} s: {len(content) / 1e6:.1f} MB, batch 1 to {key.max_batch}, "
        f"{request.precision}"
    )


def _run(
    request: BuildRequest, flavour: Flavour, build: Build, say: Say, stream: TextIO | None
) -> bytes:
    """The serialised plan."""
    progress = Progress(f"building {request.output.name}", stream)
    if not flavour.reports_progress:
        say(
            f"{flavour.title} does not report its progress; this may take minutes. Ctrl-C ends "
            "this process at once, and leaves no unfinished plan"
        )
    result: list[bytes | BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            result.append(build.run(progress))
        except BaseException as error:
            result.append(error)
        finally:
            done.set()

    # In a thread of its own: Ctrl-C must not raise an exception in TensorRT's callbacks.
    threading.Thread(target=run, name="tensorrt-build", daemon=True).start()
    try:
        done.wait()
    except KeyboardInterrupt:
        progress.stop()
        has_stopped = False
        with contextlib.suppress(KeyboardInterrupt):  # after a second Ctrl-C it waits no longer
            has_stopped = flavour.reports_progress and done.wait(_STOP_S)
        if not has_stopped:
            _end_process()
        progress.close()
        raise
    progress.close()
    (plan,) = result
    if isinstance(plan, BaseException):
        raise plan
    return plan


def _end_process() -> NoReturn:
    """End while TensorRT's threads are at work: no exit handler could stop them."""
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(_INTERRUPTED)


def _check_input(request: BuildRequest, recipe: ModelRecipe) -> None:
    if request.input != "uint8" and PLAN_INPUTS[request.input] != recipe.input.dtype:
        raise UserError(
            f"{request.model} takes {recipe.input.dtype}: its samples cannot be {request.input}. "
            "Leave --input out, and images are prepared on the GPU, or convert the model with "
            "--input native (or fp32)"
        )


def _check_types(request: BuildRequest, model: onnx.ModelProto) -> None:
    """Refuse a file whose types are not those of the precision: they are what would run."""
    from ck_mlperf.models.onnx_facts import external_files

    outside = external_files(model)
    if outside:
        raise UserError(
            f"{request.model} keeps weights in other files ({', '.join(outside[:3])}), and a plan "
            "is identified by one file. Save the model as one file (onnx.save does so by default)"
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
    if found != request.file_precision:
        raise UserError(
            f"{request.model} has the types of {found}, and they are what TensorRT runs. Convert "
            f"it with `python -m ck_mlperf.models.convert --precision {request.file_precision}` "
            f"first, or build it as {found}"
        )


def _remove_unfinished(plan: Path) -> None:
    """Remove what a killed build left; the names are those of `files.write_file`."""
    left = re.compile(rf"\.{re.escape(plan.name)}(\.json)?\.[a-z0-9_]{{8}}")
    for path in plan.parent.iterdir():
        if left.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _trim_log(messages: Sequence[tuple[str, str]]) -> list[str]:
    """Warnings and errors in full; of the other lines the first and the last."""
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
