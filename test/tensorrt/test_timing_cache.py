"""What builds leave for later builds; TensorRT is a stand-in."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import pytest

from ck_mlperf.tensorrt.build import build_plan

OLD_PLANS = Path(__file__).resolve().parents[1] / "data" / "plans"
H100 = ("NVIDIA H100 80GB HBM3", "9.0")


def test_timings_are_kept_between_builds(build_fake, tmp_path):
    cache = tmp_path / "plans" / "timing-tensorrt-10.13.0.35-NVIDIA-A100-SXM4-80GB-8.0.cache"
    calls, sidecar = build_fake("10.13.0.35")
    assert calls["timings"] == [[], False]
    assert sidecar.build["timing_cache"] == str(cache)
    calls, _ = build_fake("10.13.0.35", max_batch=8)
    assert calls["timings"] == [["timing 0"], False]
    calls, _ = build_fake("10.13.0.35", max_batch=16)
    assert calls["timings"] == [["timing 0", "timing 1"], False]


@pytest.mark.parametrize("spoil", ["cut", "flip", "foreign", "refused"])
def test_damaged_timings_are_made_anew(build_fake, tmp_path, spoil):
    folder = tmp_path / "kept"
    build_fake("11.3.0.12", timings=folder)
    (cache,) = folder.glob("*.cache")
    good = cache.read_bytes()
    refused = b'["another GPU"]'
    spoilt = {
        "cut": good[:-3],
        "flip": good.replace(b"timing 0", b"timing 1"),
        "foreign": b"hello",
        "refused": good[: good.index(b"\n") + 1] + hashlib.sha256(refused).digest() + refused,
    }[spoil]
    cache.write_bytes(spoilt)
    calls, sidecar = build_fake("11.3.0.12", timings=folder, max_batch=8)
    assert calls["timings"] == [[], False]  # nothing of it is used
    notes = [line for line in sidecar.build["log"] if line.startswith("NOTE: timing cache")]
    assert len(notes) == 1
    assert str(cache) in notes[0]
    assert ("refuses" if spoil == "refused" else "is damaged") in notes[0]
    assert "it is replaced" in notes[0]
    if spoil != "refused":  # what was written is whole again
        assert cache.read_bytes() == good


def test_timings_that_earlier_code_has_kept_are_used(build_fake, tmp_path):
    """test/data/plans was written when the library was still called tensorrt_helper."""
    name = "timing-tensorrt-8.6.1-NVIDIA-A100-SXM4-80GB-8.0.cache"
    folder = tmp_path / "kept"
    folder.mkdir()
    shutil.copy(OLD_PLANS / name, folder)
    calls, sidecar = build_fake("8.6.1", timings=folder)
    assert calls["timings"] == [["timing 0"], False]
    assert not any("timing cache" in line for line in sidecar.build["log"])


def test_one_file_for_each_version_and_gpu_in_the_folder_that_is_shared(build_fake, tmp_path):
    shared = tmp_path / "shared"
    for number, (version, gpu) in enumerate(
        [("8.6.1", H100), ("10.13.0.35", H100), ("10.13.0.35", ("NVIDIA L4", "8.9"))]
    ):
        output = tmp_path / f"plan{number}" / "model.plan"
        calls, _ = build_fake(version, gpu, timings=shared, output=output)
        assert calls["timings"] == [[], False]
    assert sorted(path.name for path in shared.glob("*.cache")) == [
        "timing-tensorrt-10.13.0.35-NVIDIA-H100-80GB-HBM3-9.0.cache",
        "timing-tensorrt-10.13.0.35-NVIDIA-L4-8.9.cache",
        "timing-tensorrt-8.6.1-NVIDIA-H100-80GB-HBM3-9.0.cache",
    ]
    # Another plan, the same version and GPU.
    output = tmp_path / "another" / "model.plan"
    calls, _ = build_fake("10.13.0.35", H100, timings=shared, output=output)
    assert calls["timings"] == [["timing 0"], False]


@pytest.fixture
def said(fake_tensorrt, set_gpus, make_request, tmp_path):
    """said(max_batch=8): what a build says that is not of its own plan."""
    fake_tensorrt("8.6.1")

    def build(gpu=H100, **changes):
        set_gpus(gpu)
        lines = []
        request = make_request(flavour="tensorrt", timings=tmp_path / "shared", **changes)
        build_plan(request, lines.append)
        return [line for line in lines if line.startswith("the last ")]

    return build


def set_seconds(tmp_path, seconds):
    """Let the last build have taken so long."""
    path = tmp_path / "shared" / "plan-build-times.json"
    builds = json.loads(path.read_text())
    builds[-1]["seconds"] = seconds
    path.write_text(json.dumps(builds))


def test_the_last_build_of_its_kind_is_told(said, tmp_path):
    assert said() == []
    set_seconds(tmp_path, 95.2)
    assert said(max_batch=3) == ["the last fp32 build here took 95 s, for batch 4"]
    assert said(max_batch=64) == []  # another kind of batch
    assert said(precision="tf32") == []
    assert said(gpu=("NVIDIA L4", "8.9")) == []
    set_seconds(tmp_path, 8)
    assert said(gpu=("NVIDIA L4", "8.9"), max_batch=5) == [
        "the last fp32 build here took 8 s, for batch 4"
    ]


def test_a_model_of_another_size_is_another_kind(said, digits, tmp_path):
    said()
    assert said(model=digits) == []
    set_seconds(tmp_path, 12)
    assert said(model=digits, max_batch=2) == ["the last fp32 build here took 12 s, for batch 4"]


@pytest.mark.parametrize(
    "content", ["", "7", "[7]", '[{"kind": []}]', "[" * 9000, '[{"kind":[],"max_batch":0,'
    '"model_bytes":1,"seconds":1}]', '[{"kind":[],"max_batch":"a","model_bytes":1,"seconds":1}]']
)  # fmt: skip
def test_a_damaged_history_tells_nothing_and_is_made_anew(said, tmp_path, content):
    said()
    (tmp_path / "shared" / "plan-build-times.json").write_text(content)
    assert said(max_batch=3) == []
    set_seconds(tmp_path, 3)
    assert said() == ["the last fp32 build here took 3 s, for batch 3"]


def test_a_killed_build_does_not_count(
    said, start_build, fake_tensorrt, set_gpus, make_request, tmp_path
):
    said()
    set_seconds(tmp_path, 50)
    path = tmp_path / "shared" / "plan-build-times.json"
    before = path.read_text()
    request = make_request(flavour="tensorrt", max_batch=3)
    process = start_build(
        request,
        "--timings",
        str(tmp_path / "shared"),
        path=fake_tensorrt("10.13.0.35"),
        FAKE_STEPS="3000",
    )
    for line in process.stderr:
        if "Build" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert path.read_text() == before
