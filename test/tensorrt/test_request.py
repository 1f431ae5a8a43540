"""Requests: what the command line makes of its options, and what makes no sense."""

import argparse
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.request import BuildRequest, parse_request


def parse(line):
    return parse_request(argparse.ArgumentParser(), line.split())


def test_the_command_line_is_the_request():
    line = "--model m.onnx --output m.plan --precision int8 --max-batch 8"
    request = parse(line)
    paths = (Path("m.onnx"), Path("m.plan"))
    assert request == BuildRequest(*paths, "int8", 8)
    assert request.input == "uint8"
    line += " --input int8 --builder-level 4 --aux-streams 0 --tiling-level 2 --workspace-mib 3"
    line += " --opt-batch 4 --flavour tensorrt_rtx --compute-capabilities 8.6,8.9 --timings kept"
    request = parse(line)
    assert request == BuildRequest(
        *paths,
        "int8",
        8,
        opt_batch=4,
        flavour="tensorrt_rtx",
        compute_capabilities=("8.6", "8.9"),
        timings=Path("kept"),
        input="int8",
        builder_level=4,
        aux_streams=0,
        tiling_level=2,
        workspace_bytes=3 << 20,
    )
    assert request.limits == {
        "builder_level": 4,
        "aux_streams": 0,
        "tiling_level": 2,
        "workspace_bytes": 3 << 20,
    }


def test_the_plan_may_be_called_so():
    line = "--model m.onnx --plan m.plan --precision tf32 --max-batch 8"
    assert parse(line).output == Path("m.plan")
    assert parse(line).file_precision == "fp32"
    with pytest.raises(UserError, match="--workspace-mib 0: want 1 or more"):
        parse(f"{line} --workspace-mib 0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch": 0}, "must be 1 or more"),
        ({"opt_batch": 5}, r"no more than the largest \(5 and 4 were given\)"),
        ({"precision": "fp8"}, "want fp32 or tf32 or fp16 or int8"),
        ({"flavour": "tensorrt_llm"}, "want tensorrt or tensorrt_rtx"),
        ({"compute_capabilities": ("9.0",)}, "builds for 7.5"),
        ({"compute_capabilities": ()}, "compute capability missing"),
    ],
    ids=str,
)
def test_requests_that_make_no_sense(rtx, make_request, make_model, changes, message):
    with pytest.raises(UserError, match=message):
        build_plan(make_request(**{"model": make_model("fp32")} | changes))


def test_paths_that_make_no_sense(rtx, make_request, tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx: no such file"):
        build_plan(make_request(model=tmp_path / "none.onnx"))
    with pytest.raises(UserError, match=r"is a folder\. Give the path of an .onnx file"):
        build_plan(make_request(model=tmp_path))
    with pytest.raises(UserError, match=r"is a folder\. Name the file to write"):
        build_plan(make_request(output=tmp_path))
