"""Settings against a data set, an engine and the GPUs of a machine."""

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.resolve import resolve_devices, resolve_settings
from ck_mlperf.loadgen.settings import RunSettings, read_settings


def test_what_does_not_fit_is_listed():
    settings = RunSettings(
        dataset_size=501, batch_size=33, conf={"performance_issue_same_index": 9}
    )
    with pytest.raises(UserError) as caught:
        resolve_settings(settings, available_images=500, engine_max_batch=32)
    problem = str(caught.value)
    assert problem.startswith("2 settings are wrong")
    assert "has 500 images" in problem
    assert "at most 32 images" in problem


def test_limits_are_allowed():
    assert resolve_settings(RunSettings(dataset_size=500, batch_size=32), 500, 32).batch_size == 32
    assert resolve_settings(RunSettings(batch_size=4096), 500, None).batch_size == 4096


def test_the_sample_that_is_issued_again_must_be_loaded():
    settings = RunSettings(conf={"performance_issue_same_index": 9})
    assert resolve_settings(settings, 10, None).conf == settings.conf
    with pytest.raises(UserError, match="only 9 images are loaded"):
        resolve_settings(settings, 9, None)


@pytest.mark.parametrize(
    ("settings", "max_batch", "batch_size"),
    [
        (RunSettings(), None, 1),
        (RunSettings(scenario="Offline"), None, 32),
        (RunSettings(scenario="Offline"), 8, 8),
        (RunSettings(scenario="Server"), 256, 32),
        (RunSettings(scenario="Server", batch_size=100), 256, 100),
        (RunSettings(batch_size=4), None, 4),
    ],
)
def test_resolve_batch_size(settings, max_batch, batch_size):
    resolved = resolve_settings(settings, 500, max_batch)
    assert resolved.batch_size == batch_size
    assert (resolved.dataset_size, resolved.buffer_size) == (500, 500)


def test_what_the_user_gave_is_kept():
    settings = read_settings({"CK_LOADGEN_SCENARIO": "Offline", "CK_LOADGEN_DATASET_SIZE": "20"})
    resolved = resolve_settings(settings, 500, None)
    assert resolved.given == settings.given
    assert (resolved.scenario, resolved.dataset_size) == ("Offline", 20)
    assert resolve_settings(resolved, 500, None) == resolved


def list_two_gpus():
    return (0, 1)


@pytest.mark.parametrize(
    ("text", "kind", "devices"),
    [
        (None, "onnx", (0,)),
        (None, "tensorrt", (0,)),
        ("all", "tensorrt", (0, 1)),
        ("1, 0", "onnx-cuda", (1, 0)),
        ("5,7,6", "null", (5, 7, 6)),
    ],
)
def test_resolve_devices(text, kind, devices):
    environ = {"CK_LOADGEN_SCENARIO": "Offline", "CK_CUDA_DEVICES": text or ""}
    assert resolve_devices(read_settings(environ), kind, list_two_gpus) == devices


@pytest.mark.parametrize(
    ("scenario", "text", "kind", "problem"),
    [
        ("Offline", "0", "onnx", "CK_CUDA_DEVICES=0: this model runs on the CPU. Leave it out"),
        ("Offline", "all", "onnx", "CK_CUDA_DEVICES=all: this model runs on the CPU. Leave it out"),
        ("Offline", "1,2,3", "tensorrt", "no GPU 2,3 here, only 0,1"),
        ("SingleStream", "all", "tensorrt", "2 GPUs, and SingleStream sends one sample at a time"),
    ],
)
def test_devices_that_cannot_be(scenario, text, kind, problem):
    settings = read_settings({"CK_LOADGEN_SCENARIO": scenario, "CK_CUDA_DEVICES": text})
    with pytest.raises(UserError, match=problem):
        resolve_devices(settings, kind, list_two_gpus)


@pytest.mark.parametrize("kind", ["onnx", "onnx-cuda", "tensorrt"])
def test_no_device_is_looked_for_unless_named(kind):
    def look():
        pytest.fail("looked")

    assert resolve_devices(RunSettings(), kind, look) == (0,)
