"""Which GPUs there are, as an nvidia-smi says that the tests put in front."""

import pytest
from imagenet_helper.errors import UserError
from tensorrt_helper.gpu import Gpu, find_gpus

A100 = Gpu("NVIDIA A100-SXM4-80GB", "8.0")
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9")
BOTH = [("NVIDIA A100-SXM4-80GB", "8.0"), ("NVIDIA GeForce RTX 4090", "8.9")]


def test_no_gpu():
    assert find_gpus() == []


def test_no_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == []


def test_kinds_are_named_once(set_gpus):
    set_gpus(*BOTH, BOTH[0])
    assert find_gpus() == [A100, RTX]
    assert str(RTX) == "NVIDIA GeForce RTX 4090 (compute capability 8.9)"


@pytest.mark.parametrize(
    ("visible", "order", "expected"),
    [
        ("1", "PCI_BUS_ID", [RTX]),
        ("1,0", "PCI_BUS_ID", [A100, RTX]),
        ("1", None, [A100, RTX]),  # CUDA's own order is another one
        ("GPU-1abc", None, [RTX]),
        ("", None, []),
    ],
)
def test_visible_devices(set_gpus, monkeypatch, visible, order, expected):
    set_gpus(*BOTH)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert find_gpus() == expected


def test_driver_that_is_too_old(no_gpu):
    script = no_gpu / "nvidia-smi"
    text = 'Field "compute_cap" is not a valid field to query.'
    script.write_text(f"#!/bin/sh\necho '{text}'\nexit 2\n")
    with pytest.raises(UserError, match="driver of version 510"):
        find_gpus()
