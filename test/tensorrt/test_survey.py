"""What one process finds out for a `ck` command; TensorRT is a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ck_mlperf.tensorrt.build
import ck_mlperf.tensorrt.plan
import ck_mlperf.tensorrt.survey as module
from ck_mlperf.common.files import hash_file
from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt.plan import read_sidecar, sidecar_path
from ck_mlperf.tensorrt.survey import answer, find_flavours, judge

from .conftest import A100

OTHER = Gpu("NVIDIA L4", "8.9")
FOUND = [("", "tensorrt", "10.13.0.35")]


@pytest.fixture
def plan(build_fake, make_request, tmp_path, monkeypatch):
    """A plan that was built, as a question about it."""
    model = tmp_path / "own.onnx"
    source = make_request().model
    shutil.copy(source, model)
    shutil.copy(source.with_suffix(".json"), model.with_suffix(".json"))
    _, sidecar = build_fake("10.13.0.35", model=model)
    return {
        "plan": str(make_request().output),
        "model": str(model),
        "flavour": "tensorrt",
        "major": "10",
        "precision": "fp32",
        "input": "uint8",
        "max_batch": 4,
        "onnx_sha256": sidecar.key.onnx_sha256,
        "plan_sha256": sidecar.plan_sha256,
    }


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are hashed from now on."""
    names = []

    def hash_it(path):
        names.append(path.name)
        return hash_file(path)

    for user in (ck_mlperf.tensorrt.build, ck_mlperf.tensorrt.plan):
        monkeypatch.setattr(user, "hash_file", hash_it)
    return names


def ask(plan, **changes):
    return judge(plan | changes, FOUND, [Gpu(*A100)])


def test_what_nobody_has_touched_is_not_hashed(plan, hashed):
    assert ask(plan) == []
    assert hashed == []
    assert ask(plan, whole=True) == []
    assert sorted(hashed) == ["model.plan", "own.onnx"]


@pytest.mark.parametrize("name", ["plan", "model"])
def test_what_was_touched_is_hashed(plan, hashed, name):
    before = os.stat(plan[name])
    with open(plan[name], "r+b") as file:
        file.seek(9)
        file.write(b"other")
    os.utime(plan[name], ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` leaves it
    hashed.clear()
    assert ("its sha256 is" if name == "plan" else "onnx_sha256 is") in ask(plan)[0]
    assert hashed == [os.path.basename(plan[name])]


def test_a_plan_that_was_cut_off(plan):
    os.truncate(plan["plan"], 9)
    assert "cut off: 9 bytes" in ask(plan)[0]


def test_a_plan_of_another_model_in_its_place(plan, build_fake, make_model, make_request, hashed):
    build_fake("10.13.0.35", model=make_model(operator="Sigmoid"))
    hashed.clear()
    assert "onnx_sha256 is" in ask(plan)[0]
    assert hashed == []


def test_the_same_built_again_in_its_place(plan):
    assert ask(plan, plan_sha256="0" * 64) == [
        "another plan lies there than was registered with CK"
    ]


def test_a_plan_without_its_model(plan, hashed):
    assert ask(plan, model="") == []
    assert hashed == []
    sidecar = sidecar_path(Path(plan["plan"]))
    sidecar.write_text(sidecar.read_text().replace("10.13.0.35", "10.9.0.1"))
    assert "version is 10.13.0.35" in ask(plan, model="")[0]


LIMITS = {"builder_level": 3, "aux_streams": 1, "tiling_level": 2}


@pytest.mark.parametrize("name", LIMITS)
def test_what_the_builder_was_told_counts(plan, build_fake, name):
    """CK keeps it as text."""
    _, sidecar = build_fake("10.13.0.35", model=Path(plan["model"]), **LIMITS)
    asked = plan | {limit: str(value) for limit, value in LIMITS.items()}
    asked["plan_sha256"] = sidecar.plan_sha256
    assert ask(asked) == []
    (fault,) = ask(asked | {name: "0"})
    assert f"options.{name} is 0, the plan was built with {LIMITS[name]}" in fault
    del asked[name]
    (fault,) = ask(asked)
    assert f"options.{name} is none, the plan was built with {LIMITS[name]}" in fault


def test_a_limit_that_makes_no_sense_is_told(plan):
    bad = plan | {"builder_level": "9"}
    gpu = {"name": A100[0], "compute_capability": A100[1]}
    site = [str(Path(path)) for path in sys.path if "site-10.13" in path]
    (judged,) = answer({"sites": site, "gpus": [gpu], "plans": [bad]})["plans"]
    assert judged == {"error": "builder_level 9: want 0 to 5"}


def test_samples_of_another_kind(plan):
    (fault,) = ask(plan, input="fp32")
    assert "input is fp32, the plan was built with uint8" in fault


def test_another_gpu_or_version(plan):
    (name, capability) = judge(plan, FOUND, [OTHER])
    assert "gpu.name is NVIDIA L4" in name
    assert "compute_capability is 8.9" in capability
    (fault,) = judge(plan, [("", "tensorrt", "10.14.0")], [Gpu(*A100)])
    assert "version is 10.14.0" in fault


def test_of_several_versions_the_plans_own_is_taken(plan):
    both = [("/8", "tensorrt", "8.6.1"), ("/10", "tensorrt", "10.13.0.35")]
    assert judge(plan, both, [Gpu(*A100)]) == []
    assert judge(plan, both[:1], [Gpu(*A100)]) == [
        "tensorrt 10 is not installed any more, with which it was built"
    ]


def test_every_tensorrt_is_found_once(fake_tensorrt, tmp_path, monkeypatch):
    own, eight = fake_tensorrt("10.13.0.35"), fake_tensorrt("8.6.1")
    monkeypatch.setattr(sys, "path", [str(own), *(p for p in sys.path if "site-8" not in p)])
    path = list(sys.path)
    found = [entry for entry in find_flavours([str(eight), str(own)]) if entry[1] == "tensorrt"]
    assert found == [("", "tensorrt", "10.13.0.35"), (str(eight), "tensorrt", "8.6.1")]
    assert sys.path == path


def test_the_command(plan, set_gpus, library_environment, tmp_path, monkeypatch):
    """One plan that cannot be judged is no reason to say nothing of the others."""
    set_gpus(A100)
    bad = plan | {"model": "", "plan": str(tmp_path / "none")}
    site = str(tmp_path / "site-10.13.0.35")
    question = {"sites": [site], "plans": [plan, bad]}
    process = subprocess.run(
        [sys.executable, "-m", "ck_mlperf.tensorrt.survey"],
        env=library_environment | {n: os.environ[n] for n in ("PATH", "LD_LIBRARY_PATH")},
        input=json.dumps(question), capture_output=True, text=True, check=True,
    )  # fmt: skip
    said = json.loads(process.stdout)
    assert [site, "tensorrt", "10.13.0.35"] in said["found"]
    assert said["gpus"] == [{"name": A100[0], "compute_capability": A100[1]}]
    assert said["has_driver"]
    assert said["plans"][0] == {"faults": []}
    assert "no such plan" in said["plans"][1]["error"]


def test_gpus_that_are_known_are_not_asked_again(monkeypatch):
    monkeypatch.setattr(module, "find_gpus", None)
    gpu = {"name": "NVIDIA L4", "compute_capability": "8.9"}
    assert answer({"gpus": [gpu]})["gpus"] == [gpu]


def test_the_bytes_are_hashed_as_they_are_read(plan):
    """`read_plan` trusts nothing that was found out before."""
    path = Path(plan["plan"])
    sidecar = read_sidecar(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    os.utime(sidecar_path(path))  # younger than the damage
    assert ask(plan) == []
    target = ck_mlperf.tensorrt.plan.Target("tensorrt", sidecar.key.version, None)
    with pytest.raises(ck_mlperf.tensorrt.plan.PlanError, match="damaged or another one"):
        ck_mlperf.tensorrt.plan.read_plan(path, target)
