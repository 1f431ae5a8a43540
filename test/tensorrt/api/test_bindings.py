"""What each version of TensorRT is told when a plan is built and run.

TensorRT for RTX is the real one. TensorRT itself cannot be installed where these tests run: a
stand-in with the names that each version has shows that the calls are the documented ones.
"""

import shutil
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.tensorrt.api import load_flavour, make_flavour
from ck_mlperf.tensorrt.api.interface import IoTensor
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.key import PlanKey

A100 = ("NVIDIA A100-SXM4-80GB", "8.0")
NO_LIMITS = dict.fromkeys(("workspace_bytes", "builder_level", "aux_streams", "tiling_level"))


@pytest.fixture
def parse(fake_tensorrt):
    """parse('8.6.1', 'fp16'): a build with the stand-in, and a key for it."""

    def parse_it(version, precision):
        fake_tensorrt(version)
        flavour = load_flavour("tensorrt")
        key = PlanKey(
            *("1" * 64, "1" * 64, None, "tensorrt", version, {}, precision, "uint8", 4, 4),
            options=flavour.list_options(precision, NO_LIMITS),
            calibration=None,
        )
        return flavour.parse(b"model", Path("model.onnx")), key

    return parse_it


@pytest.mark.parametrize(
    ("version", "precision", "network", "flags"),
    [
        ("8.6.1", "fp32", 1, []),  # 1 << EXPLICIT_BATCH
        ("8.6.1", "tf32", 1, ["TF32"]),
        ("8.6.1", "fp16", 1, ["FP16", "PREFER_PRECISION_CONSTRAINTS", "TF32"]),
        ("8.6.1", "int8", 1, ["FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS", "TF32"]),
        ("10.13.0.35", "fp32", 2, []),  # 1 << STRONGLY_TYPED
        ("10.13.0.35", "tf32", 2, ["TF32"]),
        ("10.13.0.35", "fp16", 2, ["TF32"]),
        ("10.13.0.35", "int8", 2, ["TF32"]),
        ("11.3.0.12", "fp32", 0, []),
        ("11.3.0.12", "int8", 0, ["TF32"]),
    ],
)
def test_flags_of_each_version(build_fake, version, precision, network, flags):
    calls, sidecar = build_fake(version, precision=precision)
    assert calls["network"] == [network]
    assert calls["flags"] == [flags]
    assert sorted(sidecar.key.options["flags"]) == flags
    assert sidecar.key.options["typing"] == ("weak" if version.startswith("8") else "strong")
    assert calls["shapes"] == ["images", [1, 8, 8, 3], [4, 8, 8, 3], [4, 8, 8, 3]]
    assert sidecar.key.gpu == {"name": A100[0], "compute_capability": A100[1]}
    assert sidecar.build["layers"] == {"Layers": [{"Name": "convolution"}]}
    assert [tensor.dtype for tensor in sidecar.inputs + sidecar.outputs] == ["uint8", "int32"]


def test_weakly_typed_keeps_in_float32_what_is_named(parse):
    build, key = parse("8.6.1", "fp16")
    build.configure(key, ["softmax", "topk"])
    float32 = [("precision", "FLOAT"), ("output", "FLOAT")]
    # Integers stay what they are. The builder may choose the types of the other layers, whatever
    # the network shows.
    assert [layer.asked for layer in build.network.layers] == [[], float32, float32[:1]]
    build, key = parse("8.6.2", "fp16")
    build.configure(key)
    assert [layer.asked for layer in build.network.layers] == [[], [], []]


@pytest.mark.parametrize("version", ["8.6.1", "10.13.0.35", "11.3.0.12"])
def test_every_context_has_a_profile(build_fake, version):
    calls, sidecar = build_fake(version)
    shared = ["PROFILE_SHARING_0806"] if version == "8.6.1" else []
    assert calls["previews"] == [shared]
    assert sidecar.key.options["previews"] == shared
    plan = load_flavour("tensorrt").load_plan(b"ptrt")
    for _ in range(3):
        plan.create_context(1).execute(1)


@pytest.mark.parametrize(
    ("dtype", "formats"), [("UINT8", 1), ("FLOAT", 1), ("HALF", 0b111), ("INT8", 0b11)]
)
def test_the_builder_chooses_among_layouts_of_the_input(parse, dtype, formats):
    build, key = parse("10.13.0.35", "int8")
    build.network.input.dtype = SimpleNamespace(name=dtype)
    build.configure(key)
    assert build.network.input.allowed_formats == formats  # bits: LINEAR, CHW4, HWC8


@pytest.mark.parametrize(
    ("version", "tiling", "told"),
    [
        ("8.6.1", None, None),
        ("10.7.0.23", None, None),
        ("10.8.0.43", 3, "FULL"),
        ("11.3.0.12", 1, "FAST"),
    ],
)
def test_limits_reach_the_builder_and_the_key(build_fake, version, tiling, told):
    limits = {"builder_level": 4, "aux_streams": 0, "tiling_level": tiling}
    calls, sidecar = build_fake(version, **limits)
    assert calls["levels"] == [4, 0, told]
    assert sidecar.key.options.items() >= limits.items()


@pytest.mark.parametrize("version", ["8.6.1", "10.13.0.35"])
def test_without_limits_the_builder_keeps_its_own(build_fake, version):
    calls, sidecar = build_fake(version)
    assert calls["levels"] == [None, None, None]
    assert "pool" not in calls
    assert sidecar.key.options.items() >= NO_LIMITS.items()


@pytest.mark.parametrize(
    ("version", "limits", "message"),
    [
        ("8.6.1", {"builder_level": 6}, "builder_level 6: want 0 to 5"),
        ("10.13.0.35", {"builder_level": -1}, "builder_level -1: want 0 to 5"),
        ("10.13.0.35", {"aux_streams": 65}, "aux_streams 65: want 0 to 64"),
        ("10.13.0.35", {"tiling_level": 4}, "tiling_level 4: want 0 to 3"),
        ("8.6.1", {"tiling_level": 1}, r"has no tiling_level: TensorRT 10\.8 and newer"),
        ("10.7.0.23", {"tiling_level": 1}, "has no tiling_level"),
    ],
    ids=str,
)
def test_limits_that_a_version_does_not_support(build_fake, version, limits, message):
    with pytest.raises(UserError, match=message):
        build_fake(version, **limits)


def test_tensorrt_for_rtx_has_no_tiling():
    flavour = make_flavour("tensorrt_rtx", "1.7.1")
    with pytest.raises(UserError, match=r"has no tiling_level: TensorRT 10\.8 and newer"):
        flavour.list_options("fp32", NO_LIMITS | {"tiling_level": 0})


def test_a_weakly_typed_build_keeps_the_files_float32(build_fake, make_model, tmp_path):
    """What the int8 file has not quantised and what sums or takes exponentials."""
    source, model = make_model("int8", operator="Softmax"), tmp_path / "named.onnx"
    graph = onnx.load(source)
    (softmax,) = (node for node in graph.graph.node if node.op_type == "Softmax")
    softmax.name = "softmax"  # as the stand-in has it
    onnx.save(graph, model)
    shutil.copy(source.with_suffix(".json"), model.with_suffix(".json"))
    float32 = [["precision", "FLOAT"], ["output", "FLOAT"]]
    calls, _ = build_fake("8.6.1", precision="int8", model=model)
    assert calls["asked"] == [[[], float32, []]]
    calls, _ = build_fake("10.13.0.35", precision="int8", model=model)
    assert calls["asked"] == [[[], [], []]]  # there the types in the file say it


def test_workspace_is_limited(build_fake):
    calls, sidecar = build_fake("10.13.0.35", workspace_bytes=1 << 30)
    assert calls["pool"] == ["WORKSPACE", 1 << 30]
    assert sidecar.key.options["workspace_bytes"] == 1 << 30


def test_timings_of_another_build_are_merged(parse):
    build, _ = parse("10.13.0.35", "fp32")
    assert build.use_timings(b'["ours"]')
    assert build.read_timings(b"") == b'["ours"]'
    assert build.read_timings(b'["theirs"]') == b'["ours", "theirs"]'


def test_running_goes_by_tensor_names(fake_tensorrt):
    fake_tensorrt("8.6.1")
    plan = load_flavour("tensorrt").load_plan(b"ptrt")
    assert plan.tensors == [
        IoTensor("images", True, "uint8", (-1, 8, 8, 3)),
        IoTensor("class", False, "int32", (-1,)),
    ]
    assert plan.read_format("images") == "LINEAR"
    context = plan.create_context(1)
    context.set_shape("images", (4, 8, 8, 3))
    context.set_address("images", 4096)
    context.execute(1)
    for call in (
        lambda: context.set_shape("images", (5, 8, 8, 3)),
        lambda: context.set_address("images", 3),
        lambda: context.execute(0),
    ):
        with pytest.raises(UserError, match=r"TensorRT 8\.6\.1 .*it gives no reason"):
            call()


def test_first_error_is_the_reason(fake_tensorrt):
    fake_tensorrt("10.13.0.35")
    with pytest.raises(UserError, match=r"TensorRT 10\S+ cannot load the plan: not a plan$"):
        load_flavour("tensorrt").load_plan(b"junk")


def test_builder_without_a_driver(build_fake, monkeypatch):
    monkeypatch.setenv("FAKE_NO_DRIVER", "35")
    match = r"cannot start: CUDA initialization failure with error: 35\. There is no NVIDIA driver"
    with pytest.raises(UserError, match=match):
        build_fake("10.13.0.35")


def test_real_runtime_says_why_it_refuses(rtx, make_request):
    """Without a driver, that; with one, what is wrong with the plan or the GPU."""
    request = make_request()
    build_plan(request, lambda line: None)
    flavour = load_flavour("tensorrt_rtx")
    plan = request.output.read_bytes()
    for content in (plan[: len(plan) // 2], b"junk" * 100, b""):
        with pytest.raises(UserError, match="cannot load the plan: IRuntime::deserializeCuda"):
            flavour.load_plan(content)
    try:
        flavour.load_plan(plan)
    except UserError as error:
        text = str(error)
        assert ("driver" in text and "nvidia-smi" in text) or "cannot run on this GPU" in text
