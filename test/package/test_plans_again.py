"""Plans that are there: which are used again, which are built again, and why."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest

from ..builders.installed_plans import (
    BUILDS_PLANS,
    DIGITS,
    explain,
    install,
    plans,
    read_sidecar,
)

__all__ = ["plans"]
PROGRAM = "program:image-classification-tensorrt-loadgen-py"

pytestmark = BUILDS_PLANS


@pytest.mark.parametrize(("part", "value"), [("version", "1.0.0.1"), ("source_sha256", "0" * 64)])
def test_a_stale_plan_is_built_again_and_the_reason_said(ck, plans, part, value):
    tags = f"{DIGITS},fp32,maxbatch.4"
    plan, sidecar = read_sidecar(ck, tags)
    right = sidecar["key"][part]
    sidecar["key"][part] = value
    plan.with_name("model.plan.json").write_text(json.dumps(sidecar))
    said = explain(ck, tags, code=2)
    assert part in said
    assert str(plan) in said
    failed = ck("run", PROGRAM, f"--dep_add_tags.weights={tags}", code=None)
    (line,) = [line for line in failed.stdout.splitlines() if line.startswith("building again: ")]
    assert part in line
    assert read_sidecar(ck, tags)[1]["key"][part] == right
    assert "reused" in explain(ck, tags, code=0)


def test_a_plan_that_was_cut_off_is_built_again(ck, plans):
    tags = f"{DIGITS},fp32,maxbatch.4"
    plan, sidecar = read_sidecar(ck, tags)
    plan.write_bytes(plan.read_bytes()[:-1])
    assert "cut off" in explain(ck, tags, code=2)
    install(ck, tags)
    assert plan.stat().st_size == sidecar["plan"]["bytes"]
    explain(ck, tags, code=0)


def test_a_plan_that_is_gone_is_built_again(ck, plans):
    tags = f"{DIGITS},tf32,maxbatch.2"
    plan, _ = read_sidecar(ck, tags)
    shutil.rmtree(plan.parent)
    assert "gone" in explain(ck, tags, code=2)
    install(ck, tags)
    explain(ck, tags, code=0)


def test_a_plan_that_was_copied_from_elsewhere(ck, plans, tmp_path):
    """It brings its sidecar, and that says what its tags are."""
    tags = f"{DIGITS},fp32,maxbatch.4"
    plan, sidecar = read_sidecar(ck, tags)
    uid = ck("search", "env", f"--tags={tags}").stdout.strip().rpartition(":")[2]
    ck("rm", f"env:{uid}", "--force")
    for name in ("model.plan", "model.plan.json"):
        shutil.copy(plan.with_name(name), tmp_path)
    ck("detect", "soft:model.tensorrt", f"--full_path={tmp_path / 'model.plan'}")
    assert read_sidecar(ck, tags) == (tmp_path / "model.plan", sidecar)
    explain(ck, tags, code=0)
    install(ck, tags)  # one of the same key beside it makes no difference
    explain(ck, tags, code=0)
    ck("rm", "env:*", f"--tags={tags}", "--force")
    install(ck, tags)
    (tmp_path / "model.plan.json").unlink()
    failed = ck("detect", "soft:model.tensorrt", f"--full_path={tmp_path / 'model.plan'}", code=2)
    assert "model.plan.json: no such file" in failed.stderr


def test_two_versions_of_tensorrt_are_not_chosen_between(ck, plans, tmp_path):
    info = "tensorrt-10.3.0.dist-info"
    files = {
        "tensorrt/__init__.py": '__version__ = "10.3.0"\n',
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.3.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(tmp_path / "tensorrt-10.3.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    ck("install", "package", "--tags=lib,python-package,tensorrt", "--quiet",
       PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))  # fmt: skip
    tags = f"{DIGITS},fp32,maxbatch.4"
    try:
        for command in (["why", "loadgen", f"--tags={tags}"],
                        ["run", PROGRAM, f"--dep_add_tags.weights={tags}"]):  # fmt: skip
            said = ck(*command, code=2).stderr
            assert "several versions of TensorRT" in said
            assert "tensorrt-10" in said
            assert "tensorrt-rtx" in said
        explain(ck, f"{tags},tensorrt-rtx", code=0)
        # Asked for, and never another: it builds on the GPU only.
        assert "no plan is registered" in explain(ck, f"{tags},tensorrt-10", code=2)
        assert (
            "TensorRT 10.3.0 builds a plan on the GPU"
            in install(ck, f"{tags},tensorrt-10", code=2).stderr
        )
    finally:
        ck("rm", "env:*", "--tags=lib,python-package,tensorrt", "--force")


# Models that the user has detected
