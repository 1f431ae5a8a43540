"""Which TensorRT is installed, which file of api/ serves it, and for which GPUs it builds."""

import sys

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.gpus import find_gpus
from ck_mlperf.tensorrt.api import find_version, load_flavour, make_flavour

A100 = ("NVIDIA A100-SXM4-80GB", "8.0")
ADA = ("NVIDIA GeForce RTX 4090", "8.9")
GTX_1080 = ("NVIDIA GeForce GTX 1080", "6.1")
H200 = ("NVIDIA H200", "9.0")


@pytest.mark.parametrize("version", ["7.2.3.4", "8.5.3.1", "9.3.0.1", "junk"])
def test_versions_that_are_refused(fake_tensorrt, version):
    fake_tensorrt(version)
    with pytest.raises(UserError, match=r"want 8\.6, 10 or 11.*pip install tensorrt"):
        load_flavour("tensorrt")


def test_version_of_the_future_is_noted():
    flavour = make_flavour("tensorrt", "12.1.0")
    assert flavour.is_strongly_typed
    assert "newer than this code, which was written for 11.x" in flavour.notes[0]
    assert make_flavour("tensorrt", "11.9.0").notes == []
    assert make_flavour("tensorrt_rtx", "1.9").notes == []
    assert "written for 1.x" in make_flavour("tensorrt_rtx", "2.0").notes[0]


@pytest.mark.parametrize(
    ("name", "version", "facts"),
    [
        ("tensorrt", "8.6.1", (False, False, True, True)),
        ("tensorrt", "10.0.1", (True, True, True, True)),
        ("tensorrt", "11.3.0.12", (True, True, True, True)),
        ("tensorrt_rtx", "1.7.1", (True, True, False, False)),
    ],
)
def test_what_each_family_does(name, version, facts):
    flavour = make_flavour(name, version)
    assert facts == (
        flavour.is_strongly_typed,
        flavour.reports_progress,
        flavour.has_timing_cache,
        flavour.captures_graphs,
    )


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


def test_two_installations_in_one_folder(fake_tensorrt):
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
    match = r"does not load: libnvinfer\.so\.10: .*one of TensorRT's own libraries.*-libs has it"
    with pytest.raises(UserError, match=match):
        _ = load_flavour("tensorrt").trt
    path.write_text(path.read_text().replace(said, "undefined symbol: x"))
    with pytest.raises(UserError, match=r"does not load: undefined symbol: x$"):
        _ = load_flavour("tensorrt").trt  # the cause is not known, and there is no advice


def test_a_version_that_only_the_module_knows(fake_tensorrt):
    """It is imported for that; an import that fails is told with the folder."""
    path = fake_tensorrt("10.13.0.35") / "tensorrt" / "__init__.py"
    path.write_text(path.read_text().replace('"10.13.0.35"', "str('10.14')"))
    assert find_version("tensorrt") == "10.14"
    sys.modules.pop("tensorrt")
    path.write_text("raise ImportError('undefined symbol: x')")
    match = rf"is installed in {path.parent} but does not load: undefined symbol: x$"
    with pytest.raises(UserError, match=match):
        find_version("tensorrt")


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
    built_for = make_flavour(*flavour).choose_gpu(asked, find_gpus)
    if flavour[0] == "tensorrt":
        assert built_for == {"name": expected[0], "compute_capability": expected[1]}
    else:
        assert built_for == {"compute_capabilities": expected}


@pytest.mark.parametrize(
    ("flavour", "gpus", "capabilities", "message"),
    [
        (("tensorrt", "10.13.0"), [], None, "there is none here.*tensorrt_rtx, which needs none"),
        (("tensorrt", "10.13.0"), [GTX_1080], None, r"does not run on .*GTX 1080.*7\.5.*==8\.6\.1"),
        (("tensorrt", "10.4.0"), [("TITAN Xp", "6.1")], None, r"needs 7\.0"),
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
        make_flavour(*flavour).choose_gpu(capabilities, find_gpus)
