"""`ck why loadgen`: would a plan be reused or built, and why?"""

from __future__ import annotations

import argparse
import sys

from ck_mlperf.commands.parser import Parser
from ck_mlperf.common.errors import UserError

SUMMARY = "say why a TensorRT plan would be reused or built"

_PLAN = "model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32"
_DESCRIPTION = """\
Say whether a run that asks for a TensorRT plan by these tags would reuse one (exit code 0) or
build one (exit code 2), and which part of the plan's key differs. Builds nothing."""


def make_parser() -> Parser:
    parser = Parser(
        _DESCRIPTION,
        [
            f"--tags={_PLAN}",
            "--tags=model,tensorrt,digits,converted-from-onnx,fp16,maxbatch.8,tensorrt-rtx",
            "--tags=model,tensorrt,resnet,converted-from-onnx,int8,maxbatch.256,input.int8",
        ],
    )
    parser.add_argument(
        "--tags", default="", metavar="TAG,...", help="of a plan, as a run has them (required)"
    )
    return parser


def main(arguments: argparse.Namespace) -> int:
    """Print whether and why. Returns 0 where a plan would be reused, else 2."""
    from ck_mlperf.catalog.plan import PlanChain
    from ck_mlperf.catalog.request import read_request
    from ck_mlperf.commands.through_ck import load_catalog
    from ck_mlperf.common.tags import split_tags

    tags = split_tags(arguments.tags)
    if "tensorrt" not in tags:
        raise UserError(f"want the tags of a plan, such as --tags={_PLAN}")
    # CK's Python dep is the interpreter of CK itself.
    is_reused, lines = PlanChain(load_catalog(), read_request(tags), sys.executable).explain()
    for line in lines:
        print(line)
    return 0 if is_reused else 2
