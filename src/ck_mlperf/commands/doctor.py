"""`ck doctor loadgen --gpu`: can this machine's GPU convert, build and run?"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ck_mlperf.commands.parser import Parser
from ck_mlperf.common.errors import UserError

if TYPE_CHECKING:
    from ck_mlperf.loadgen.checkup_steps import Steps

SUMMARY = "check this machine's GPU (--gpu): convert a small network, build, run, compare, time"

_DESCRIPTION = """\
Check the GPU path of this machine: convert a small network, build a plan in each precision, run
it, compare its answers with those of ONNX Runtime, and time it. Prints a report to paste into an
issue. The exit code is 1 where a step failed, after which those that do not depend on it go on."""

_REPOSITORY = Path(__file__).resolve().parents[3]
_MODEL = _REPOSITORY / "package" / "model-onnx-digits" / "digits.onnx"


def make_parser() -> Parser:
    parser = Parser(_DESCRIPTION, ["--gpu", "--gpu --device=1", "--gpu --tags=tensorrt-rtx"])
    parser.add_flag("--gpu", "check the GPU, which is the only check so far", required=True)
    parser.add_argument(
        "--device", type=int, default=0, metavar="N", help="CUDA's number (default: %(default)s)"
    )
    parser.add_argument(
        "--tags",
        default="",
        metavar="TAG",
        help="tensorrt-rtx, tensorrt-8 and so on: the TensorRT to check (default: the one that is "
        "installed)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="preprocessed digits to calibrate int8 with (default: through CK, made; else int8 is "
        "not checked)",
    )
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    from ck_mlperf.catalog.host import has_driver

    names = ["numpy", "onnx", "onnxruntime", _choose_flavour(arguments)]
    # pycuda is built against CUDA.
    return [*names, "pycuda", "cuda-bindings"] if has_driver() else names


def complete(arguments: argparse.Namespace) -> list[str]:
    """The options that CK adds: the TensorRT that it has chosen, and images to calibrate with."""
    words = [f"--tags={_choose_flavour(arguments)}"]
    if arguments.calibration is None:
        folder = _obtain_calibration()
        words += [f"--calibration={folder}"] if folder else []
    return words


def main(arguments: argparse.Namespace) -> int:
    """Do the check and print its report. Returns 1 where a step failed."""
    from ck_mlperf.loadgen.checkup import examine

    return 0 if examine(make_steps(arguments)) else 1


def make_steps(arguments: argparse.Namespace) -> Steps:
    """The steps of the check, with all that they need."""
    from ck_mlperf.loadgen.checkup_steps import Steps
    from ck_mlperf.tensorrt.names import read_flavour_tag

    tag = _read_flavour(arguments)
    module = None if tag is None else read_flavour_tag(tag)[0]
    tools = os.environ.get("CK_TOOLS") or Path.home() / "CK_TOOLS"
    timings = Path(tools, "ck-doctor-loadgen")
    return Steps(_MODEL, module, arguments.device, arguments.calibration, timings)


def _read_flavour(arguments: argparse.Namespace) -> str | None:
    """The tag of a TensorRT among --tags; 'tensorrt': any version, but not TensorRT for RTX."""
    from ck_mlperf.catalog.request import read_request
    from ck_mlperf.common.tags import split_tags
    from ck_mlperf.tensorrt.names import MODULE

    tags = split_tags(arguments.tags)
    return MODULE if tags == {MODULE} else read_request(tags).flavour


def _choose_flavour(arguments: argparse.Namespace) -> str:
    """The tag of the TensorRT to check, on this machine."""
    from ck_mlperf.catalog.host import survey_host
    from ck_mlperf.commands.through_ck import load_catalog

    # CK's Python dep is the interpreter of CK itself.
    host = survey_host(load_catalog(), sys.executable)
    flavour = _read_flavour(arguments)
    if flavour is None and len(host.flavours) == 1:
        (flavour,) = host.flavours  # even one that does not take this GPU: the report will say so
    return host.choose_flavour(flavour)


def _obtain_calibration() -> str | None:
    """The folder of preprocessed digits; None where they cannot be made, which has been said."""
    from ck_mlperf.catalog.calibration import obtain_calibration
    from ck_mlperf.commands.through_ck import load_catalog

    recipe = json.loads(_MODEL.with_suffix(".json").read_text())
    try:
        return obtain_calibration(load_catalog(), recipe).path
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except SystemExit:  # what CK was to install has said why it failed
        pass
    return None
