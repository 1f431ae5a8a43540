"""Flavours: what is told to which version, and what the user is told.

TensorRT for RTX is the real one. TensorRT itself cannot be installed where these tests run: a
stand-in with the names that each version has shows that the calls are the documented ones.
"""

import shutil
import sys
from types import SimpleNamespace

import onnx
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import find_gpus
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.flavour import (
    Flavour,
    IoTensor,
    find_version,
    load_flavour,
)

A100 = ("NVIDIA A100-SXM4-80GB", "8.0")
GTX_1080 = ("NVIDIA GeForce GTX 1080", "6.1")


NO_LIMITS = dict.fromkeys(("workspace_bytes", "builder_level", "aux_streams", "tiling_level"))


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


def test_weakly_typed_keeps_in_float32_what_is_named(fake_tensorrt):
    fake_tensorrt("8.6.1")
    flavour = load_flavour("tensorrt")
    builder = flavour.create_builder()
    network = builder.create_network()
    flavour.create_config(builder, network, "fp16", {}, NO_LIMITS, ["softmax", "topk"])
    float32 = [("precision", "FLOAT"), ("output", "FLOAT")]
    # What is no float stays what it is; of the rest the builder may choose, whatever it shows.
    assert [layer.asked for layer in network.layers] == [[], float32, float32[:1]]
    network = builder.create_network()
    flavour.create_config(builder, network, "fp16", {}, NO_LIMITS)
    assert [layer.asked for layer in network.layers] == [[], [], []]


@pytest.mark.parametrize("version", ["8.6.1", "10.13.0.35", "11.3.0.12"])
def test_every_context_has_a_profile(build_fake, version):
    calls, sidecar = build_fake(version)
    shared = ["PROFILE_SHARING_0806"] if version == "8.6.1" else []
    assert calls["previews"] == [shared]
    assert sidecar.key.options["previews"] == shared
    flavour = load_flavour("tensorrt")
    engine = flavour.deserialise(b"ptrt")
    for _ in range(3):
        flavour.execute(flavour.create_context(engine, 1), 1)


@pytest.mark.parametrize(
    ("dtype", "formats"), [("UINT8", 1), ("FLOAT", 1), ("HALF", 0b111), ("INT8", 0b11)]
)
def test_the_builder_chooses_among_layouts_of_the_input(fake_tensorrt, dtype, formats):
    fake_tensorrt("10.13.0.35")
    flavour = load_flavour("tensorrt")
    builder = flavour.create_builder()
    network = builder.create_network()
    network.input.dtype = SimpleNamespace(name=dtype)
    flavour.create_config(builder, network, "int8", {}, NO_LIMITS)
    assert network.input.allowed_formats == formats  # bits: LINEAR, CHW4, HWC8


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
def test_limits_that_a_version_does_not_take(build_fake, version, limits, message):
    with pytest.raises(UserError, match=message):
        build_fake(version, **limits)


def test_tensorrt_for_rtx_has_no_tiling():
    with pytest.raises(UserError, match=r"has no tiling_level: TensorRT 10\.8 and newer"):
        Flavour("tensorrt_rtx", "1.7.1").list_options("fp32", NO_LIMITS | {"tiling_level": 0})


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
    assert calls["asked"] == [[[], [], []]]  # there the file itself says it


def test_workspace_is_limited(build_fake):
    calls, sidecar = build_fake("10.13.0.35", workspace_bytes=1 << 30)
    assert calls["pool"] == ["WORKSPACE", 1 << 30]
    assert sidecar.key.options["workspace_bytes"] == 1 << 30


def test_log_keeps_warnings_whole_and_information_short(build_fake):
    _, sidecar = build_fake("10.13.0.35")
    log = sidecar.build["log"]
    assert "WARNING: a warning " + "w" * 3000 in log
    assert sum(line.startswith("INFO: ") for line in log) == 200
    assert "NOTE: 800 lines of information left out" in log
    assert "INFO: line 0" in log
    assert "INFO: line 999" in log
    assert not any("never kept" in line for line in log)


def test_running_goes_by_tensor_names(fake_tensorrt):
    fake_tensorrt("8.6.1")
    flavour = load_flavour("tensorrt")
    engine = flavour.deserialise(b"ptrt")
    assert flavour.list_tensors(engine) == [
        IoTensor("images", True, "uint8", (-1, 8, 8, 3)),
        IoTensor("class", False, "int32", (-1,)),
    ]
    context = flavour.create_context(engine, 1)
    flavour.set_shape(context, "images", (4, 8, 8, 3))
    flavour.set_address(context, "images", 4096)
    flavour.execute(context, 1)
    for call in (
        lambda: flavour.set_shape(context, "images", (5, 8, 8, 3)),
        lambda: flavour.set_address(context, "images", 3),
        lambda: flavour.execute(context, 0),
    ):
        with pytest.raises(UserError, match=r"TensorRT 8\.6\.1 .*it gives no reason"):
            call()


def test_first_error_is_the_reason(fake_tensorrt):
    fake_tensorrt("10.13.0.35")
    with pytest.raises(UserError, match=r"TensorRT 10\S+ cannot load the plan: not a plan$"):
        load_flavour("tensorrt").deserialise(b"junk")


def test_builder_without_a_driver(build_fake, monkeypatch):
    monkeypatch.setenv("FAKE_NO_DRIVER", "35")
    match = r"cannot start: CUDA initialization failure with error: 35\. There is no NVIDIA driver"
    with pytest.raises(UserError, match=match):
        build_fake("10.13.0.35")


@pytest.mark.parametrize("version", ["7.2.3.4", "8.5.3.1", "9.3.0.1", "junk"])
def test_versions_that_are_refused(fake_tensorrt, version):
    fake_tensorrt(version)
    with pytest.raises(UserError, match=r"want 8\.6, 10 or 11.*pip install tensorrt"):
        load_flavour("tensorrt")


def test_version_of_the_future_is_noted():
    flavour = Flavour("tensorrt", "12.1.0")
    assert flavour.is_strongly_typed
    assert "newer than what this was written for" in flavour.notes[0]
    assert Flavour("tensorrt", "11.9.0").notes == []


def test_flavour_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name, package in (("tensorrt", "pip install tensorrt-cu13 "), ("tensorrt_rtx", "rtx-cu13")):
        monkeypatch.delitem(sys.modules, name, raising=False)
        with pytest.raises(UserError, match=f"{name} is not installed.*{package}.*compute cap"):
            load_flavour(name)
    with pytest.raises(UserError, match="no TensorRT is installed"):
        load_flavour()


def test_type_stubs_are_no_installation(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert find_version("tensorrt") is None


def test_several_flavours_must_be_chosen_from(rtx, fake_tensorrt):
    fake_tensorrt("10.13.0.35")
    with pytest.raises(UserError, match=r"tensorrt and tensorrt_rtx are both installed.*Say which"):
        load_flavour()
    assert load_flavour("tensorrt").version == "10.13.0.35"
    assert load_flavour("tensorrt_rtx").version == rtx


def test_version_is_that_of_the_module(rtx):
    """It was read from a file; `trt` refuses a module that says another."""
    assert load_flavour("tensorrt_rtx").trt is sys.modules["tensorrt_rtx"]
    assert sys.modules["tensorrt_rtx"].__version__ == rtx


def test_two_installations_over_each_other(fake_tensorrt):
    folder = fake_tensorrt("10.13.0.35")
    flavour = load_flavour("tensorrt")
    path = folder / "tensorrt" / "__init__.py"
    path.write_text(path.read_text() + "\n__version__ = '8' + '.6.1'\n")
    with pytest.raises(UserError, match=r"says that it is 8\.6\.1, its files say 10\.13"):
        _ = flavour.trt


def test_library_that_does_not_load(fake_tensorrt):
    folder = fake_tensorrt("10.13.0.35")
    path = folder / "tensorrt" / "__init__.py"
    said = "libnvinfer.so.10: cannot open shared object file: No such file or directory"
    path.write_text(path.read_text() + f"\nraise ImportError('{said}')\n")
    match = r"cannot be loaded: libnvinfer\.so\.10: .*one of TensorRT's own libraries.*-libs has it"
    with pytest.raises(UserError, match=match):
        _ = load_flavour("tensorrt").trt
    path.write_text(path.read_text().replace(said, "undefined symbol: x"))
    with pytest.raises(UserError, match=r"cannot be loaded: undefined symbol: x$"):
        _ = load_flavour("tensorrt").trt  # nobody knows why, and there is no advice


H200 = ("NVIDIA H200", "9.0")
ADA = ("NVIDIA GeForce RTX 4090", "8.9")


@pytest.mark.parametrize(
    ("flavour", "gpus", "asked", "expected"),
    [
        (("tensorrt", "10.13.0"), [A100, A100], None, A100),
        (("tensorrt", "8.6.1"), [GTX_1080], None, GTX_1080),
        (("tensorrt_rtx", "1.7.1"), [], None, ["8.0", "8.6", "8.9", "12.0", "12.1"]),
        (("tensorrt_rtx", "1.4.0"), [], None, ["8.6", "8.9", "12.0"]),
        (("tensorrt_rtx", "1.7.1"), [ADA, H200], None, ["8.9"]),
        (("tensorrt_rtx", "1.7.1"), [H200], ["12.0", "7.5", "12.0"], ["7.5", "12.0"]),
    ],
)
def test_what_is_built_for(set_gpus, flavour, gpus, asked, expected):
    set_gpus(*gpus)
    built_for = Flavour(*flavour).choose_gpu(asked, find_gpus)
    if flavour[0] == "tensorrt":
        assert built_for == {"name": expected[0], "compute_capability": expected[1]}
    else:
        assert built_for == {"compute_capabilities": expected}


@pytest.mark.parametrize(
    ("flavour", "gpus", "capabilities", "message"),
    [
        (("tensorrt", "10.13.0"), [], None, "there is none here.*tensorrt_rtx, which needs none"),
        (("tensorrt", "10.13.0"), [GTX_1080], None, r"does not run on .*GTX 1080.*7\.5.*==8\.6\.1"),
        (("tensorrt", "10.4.0"), [("TITAN Xp", "6.1")], None, r"wants 7\.0"),
        (("tensorrt", "11.0.0"), [A100, GTX_1080], None, "different GPUs.*CUDA_VISIBLE_DEVICES"),
        (("tensorrt", "11.0.0"), [A100], ["8.0"], "Leave the option out"),
        (("tensorrt_rtx", "1.7.1"), [H200], None, r"H200.*8\.9.*--compute-cap"),
        (("tensorrt_rtx", "1.7.1"), [], ["9.0"], r"compute capability '9\.0': .*builds for 7\.5"),
        (("tensorrt_rtx", "1.7.1"), [], ["8.6 "], "builds for 7.5"),
    ],
)
def test_what_cannot_be_built_for(set_gpus, flavour, gpus, capabilities, message):
    set_gpus(*gpus)
    with pytest.raises(UserError, match=message):
        Flavour(*flavour).choose_gpu(capabilities, find_gpus)


def test_real_runtime_says_why_it_refuses(rtx, make_request):
    """Without a driver, that; with one, what is wrong with the plan or the GPU."""
    request = make_request()
    build_plan(request, lambda line: None)
    flavour = load_flavour("tensorrt_rtx")
    plan = request.output.read_bytes()
    for content in (plan[: len(plan) // 2], b"junk" * 100, b""):
        with pytest.raises(UserError, match="cannot load the plan: IRuntime::deserializeCuda"):
            flavour.deserialise(content)
    try:
        flavour.deserialise(plan)
    except UserError as error:
        text = str(error)
        assert ("driver" in text and "nvidia-smi" in text) or "cannot run on this GPU" in text
