"""Whether a registered plan is what would be built now; TensorRT is a stand-in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ck_mlperf.catalog.host import Host, Tensorrt
from ck_mlperf.catalog.judge import judge_plan_file
from ck_mlperf.catalog.kernel import Entry
from ck_mlperf.catalog.request import read_request
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file
from ck_mlperf.machine.gpus import Gpu
from ck_mlperf.tensorrt import lookup, plan_file
from ck_mlperf.tensorrt.key import Target
from ck_mlperf.tensorrt.plan_file import PlanError, read_plan, read_sidecar, sidecar_path

from ..builders.plans import A100

TEN = Tensorrt("tensorrt", "10.13.0.35")
HOST = Host((TEN,), (Gpu(*A100),))
LIMITS = {"builder_level": 3, "aux_streams": 1, "tiling_level": 2}


class Plan:
    """A plan that was built, and its env entry."""

    def __init__(self, path: Path, model: Path, build_fake, **changes) -> None:
        self.path, self.model = path, model
        _, sidecar = build_fake(TEN.version, model=model, **changes)
        self.sha256, self.onnx_sha256 = sidecar.plan_sha256, sidecar.key.onnx_sha256

    def entry(self, model: bool = True, made: str = "native", **options: str) -> Entry:
        recipe = {"sha256": self.onnx_sha256, "conversion": {"input": made}}
        customize = {"full_path": str(self.model), "recipe": recipe}
        converted = {"converted": {"dict": {"customize": customize}}} if model else {}
        notes = {"full_path": str(self.path), "recipe": {"sha256": self.sha256}}
        return Entry(
            "plan",
            {
                "tags": ["model", "tensorrt", "tensorrt-10"],
                "deps": converted,
                "customize": notes | {"install_env": options},
            },
        )

    def judge(self, tags: str = "", host: Host = HOST, thorough: bool = False, **others):
        request = read_request({"model", "tensorrt", "maxbatch.4", *filter(None, [tags])})
        return judge_plan_file(self.entry(**others), request, host, thorough)


@pytest.fixture
def model(make_request, tmp_path) -> Path:
    source = make_request().model
    shutil.copy(source.with_suffix(".json"), tmp_path / "own.json")
    return Path(shutil.copy(source, tmp_path / "own.onnx"))


@pytest.fixture
def plan(build_fake, make_request, model) -> Plan:
    return Plan(make_request().output, model, build_fake)


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are hashed from now on."""
    names = []

    def hash_it(path):
        names.append(path.name)
        return hash_file(path)

    for user in (lookup, plan_file):
        monkeypatch.setattr(user, "hash_file", hash_it)
    return names


def test_what_nobody_has_touched_is_not_hashed(plan, hashed):
    assert plan.judge() == []
    assert hashed == []
    assert plan.judge(thorough=True) == []
    assert sorted(hashed) == ["model.plan", "own.onnx"]


@pytest.mark.parametrize("name", ["path", "model"])
def test_what_was_touched_is_hashed(plan, hashed, name):
    path = getattr(plan, name)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(9)
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` leaves it
    hashed.clear()
    assert ("its sha256 is" if name == "path" else "onnx_sha256 is") in plan.judge()[0]
    assert hashed == [path.name]


def test_a_plan_that_was_cut_off(plan):
    os.truncate(plan.path, 9)
    assert "cut off: 9 bytes" in plan.judge()[0]


def test_a_plan_of_another_model_in_its_place(plan, build_fake, make_model, hashed):
    build_fake(TEN.version, model=make_model(operator="Sigmoid"))
    hashed.clear()
    assert "onnx_sha256 is" in plan.judge()[0]
    assert hashed == []


def test_the_same_built_again_in_its_place(plan):
    plan.sha256 = "0" * 64
    assert plan.judge() == ["another plan is there than was registered with CK"]


def test_a_plan_without_its_model(plan, hashed):
    assert plan.judge(model=False) == []
    assert hashed == []
    sidecar = sidecar_path(plan.path)
    sidecar.write_text(sidecar.read_text().replace(TEN.version, "10.9.0.1"))
    assert f"version is {TEN.version}" in plan.judge(model=False)[0]


@pytest.mark.parametrize("name", LIMITS)
def test_what_the_builder_was_told_counts(build_fake, make_request, model, name):
    """CK keeps it as text, and as '' what was not said."""
    plan = Plan(make_request().output, model, build_fake, **LIMITS)
    options = {f"TENSORRT_{limit.upper()}": str(value) for limit, value in LIMITS.items()}
    options |= {"TENSORRT_OPT_BATCH_SIZE": "", "CALIBRATION_COUNT": "12"}
    assert plan.judge(**options) == []
    (fault,) = plan.judge(**options | {f"TENSORRT_{name.upper()}": "0"})
    assert f"options.{name} is 0, the plan was built with {LIMITS[name]}" in fault
    (fault,) = plan.judge(**options | {f"TENSORRT_{name.upper()}": ""})
    assert f"options.{name} is none, the plan was built with {LIMITS[name]}" in fault


def test_a_limit_that_makes_no_sense_is_told(plan):
    with pytest.raises(UserError, match="builder_level 9: want 0 to 5"):
        plan.judge(TENSORRT_BUILDER_LEVEL="9")


def test_a_plan_of_a_file_that_prepared_images_itself(plan):
    """Older commits built plans so; today's take what their first layer computes in."""
    assert plan.judge(made="uint8") == [
        "the converted file's input is native, the plan was built from one with uint8"
    ]


def test_samples_of_another_kind(plan):
    (fault,) = plan.judge("input.fp32", made="fp32")
    assert "input is fp32, the plan was built with uint8" in fault


def test_another_gpu_or_version(plan):
    name, capability = plan.judge(host=Host((TEN,), (Gpu("NVIDIA L4", "8.9"),)))
    assert "gpu.name is NVIDIA L4" in name
    assert "compute_capability is 8.9" in capability
    (fault,) = plan.judge(host=Host((Tensorrt("tensorrt", "10.14.0"),), HOST.gpus))
    assert "version is 10.14.0" in fault


def test_of_several_versions_the_plans_own_is_taken(plan):
    eight = Tensorrt("tensorrt", "8.6.1")
    assert plan.judge(host=Host((eight, TEN), HOST.gpus)) == []
    assert plan.judge(host=Host((eight,), HOST.gpus)) == [
        "tensorrt 10 is not installed any more, with which it was built"
    ]


def test_the_bytes_are_hashed_as_they_are_read(plan):
    """`read_plan` trusts nothing that was found out before."""
    sidecar = read_sidecar(plan.path)
    content = plan.path.read_bytes()
    plan.path.write_bytes(content[:-1] + b"?")
    os.utime(sidecar_path(plan.path))  # younger than the damage
    assert plan.judge() == []
    with pytest.raises(PlanError, match="damaged or was replaced"):
        read_plan(plan.path, Target("tensorrt", sidecar.key.version, None))
