import getpass
import json
import os
import platform
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

import ck_mlperf.machine.environment as module
from ck_mlperf.common.errors import UserError
from ck_mlperf.machine.environment import describe_environment, find_gpu_uuid, list_cuda_devices


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A fake nvidia-smi first on PATH: nvidia_smi('echo ...')."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda text: write_script(folder / "nvidia-smi", text)


def test_this_machine(tmp_path):
    found = describe_environment(tmp_path)
    assert found["python"].endswith(platform.python_version())
    assert found["cpu"]["cores_usable"] == len(os.sched_getaffinity(0))
    assert found["cpu"]["machine"] == platform.machine()
    assert found["memory_mib"] > 100
    assert found["packages"]["mlcommons-loadgen"]
    assert found["packages"]["numpy"]
    assert found["repository"] is None


def test_no_names_and_no_paths(repository):
    text = json.dumps(describe_environment(repository))
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert '"/' not in text


def test_fast_enough_to_be_part_of_each_run(repository, monkeypatch):
    monkeypatch.setattr(module, "_list_gpus", list)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        describe_environment(repository)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.1


def test_commit_and_whether_it_is_clean(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    (tmp_path / ".gitignore").write_text("ignored\n")
    assert describe_environment(tmp_path)["repository"] == {"commit": None, "clean": False}
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "a")
    (tmp_path / "ignored").write_text("x")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert describe_environment(tmp_path)["repository"] == {"commit": commit, "clean": True}
    (tmp_path / "a").write_text("2")
    assert describe_environment(tmp_path)["repository"] == {"commit": commit, "clean": False}
    git(tmp_path, "checkout", "-q", "a")
    (tmp_path / "new.py").write_text("")
    assert describe_environment(tmp_path)["repository"]["clean"] is False


def test_a_repository_around_is_not_this_one(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    inner = tmp_path / "copy"
    inner.mkdir()
    assert describe_environment(inner)["repository"] is None
    (inner / ".git").write_text("gitdir: nowhere")
    assert describe_environment(inner)["repository"] is None
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert describe_environment(inner)["repository"] is None


def test_gpus(nvidia_smi):
    nvidia_smi(
        'echo "NVIDIA H100 80GB HBM3, 550.54.15, 81559, 1980, 2619, 700.00"\n'
        'echo "NVIDIA GeForce GTX 1080, 550.54.15, 8192, 1911, 5005, [N/A]"'
    )
    first, second = describe_environment(Path("/"))["gpus"]
    assert first == {
        "name": "NVIDIA H100 80GB HBM3",
        "driver": "550.54.15",
        "memory_mib": 81559,
        "max_sm_clock_mhz": 1980,
        "max_memory_clock_mhz": 2619,
        "power_limit_w": 700,
    }
    assert second["power_limit_w"] is None


@pytest.mark.parametrize(
    "script",
    [
        'echo "NVIDIA-SMI has failed because it could not communicate"; exit 9',
        'echo "No devices were found"',
        "exec sleep 60",
        "kill -SEGV $$",
    ],
)
def test_nvidia_smi_that_does_not_work(nvidia_smi, monkeypatch, script):
    monkeypatch.setattr("ck_mlperf.machine.nvidia_smi._TIMEOUT_S", 0.5)
    nvidia_smi(script)
    assert describe_environment(Path("/"))["gpus"] == []


def test_processor_with_a_limit(monkeypatch):
    files = {
        "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nprocessor\t: 1\n",
        "/sys/fs/cgroup/cpu.max": "150000 100000",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3400000",
    }
    monkeypatch.setattr(module, "read_text", lambda path: files.get(str(path)))
    cpu = describe_environment(Path("/"))["cpu"]
    assert cpu["model"] == "Some CPU"
    assert cpu["cores_quota"] == 1.5
    assert cpu["governor"] == "performance"
    assert (cpu["min_clock_mhz"], cpu["max_clock_mhz"]) == (None, 3400)
    files["/sys/fs/cgroup/cpu.max"] = "max 100000"
    files["/proc/cpuinfo"] = "processor\t: 0\nBogoMIPS\t: 50.00\n"
    files["/proc/device-tree/model"] = "Jetson AGX Orin\0"
    cpu = describe_environment(Path("/"))["cpu"]
    assert (cpu["cores_quota"], cpu["model"]) == (None, "Jetson AGX Orin")


def test_containers(monkeypatch):
    marks: set[str] = set()
    monkeypatch.setattr(Path, "exists", lambda self: str(self) in marks)
    monkeypatch.setattr(module, "read_text", lambda path: "0::/\n")
    for name in ("container", "KUBERNETES_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert module._detect_container() is None
    monkeypatch.setenv("KUBERNETES_PORT", "tcp://10.0.0.1:443")
    assert module._detect_container()["kind"] == "kubernetes"
    marks.add("/run/.containerenv")
    assert module._detect_container() == {"kind": "podman", "detected_by": ".containerenv"}
    marks.add("/.dockerenv")
    assert module._detect_container() == {"kind": "docker", "detected_by": ".dockerenv"}


class FakeCuda:
    """The driver's library, with some devices or with an error."""

    def __init__(self, devices=0, init=0, count=0):
        self.devices = devices
        self.codes = init, count

    def cuInit(self, flags):  # noqa: N802
        assert flags == 0
        return self.codes[0]

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = self.devices
        return self.codes[1]

    def cuDeviceGet(self, handle, device):  # noqa: N802
        handle._obj.value = 7
        return 0 if device < self.devices else 101

    def cuDeviceGetUuid(self, uuid, handle):  # noqa: N802
        assert handle.value == 7
        uuid._obj[:] = bytes(range(0xA0, 0xB0))
        return self.codes[1]


def test_cuda_devices(monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: FakeCuda(3))
    assert list_cuda_devices() == (0, 1, 2)


@pytest.mark.parametrize("cuda", [FakeCuda(0), FakeCuda(1, init=100), FakeCuda(1, count=100)])
def test_no_cuda_device(monkeypatch, cuda):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: cuda)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(UserError, match=r"finds no GPU .* CUDA_VISIBLE_DEVICES is '-1'"):
        list_cuda_devices()


def test_a_driver_that_does_not_work(monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: FakeCuda(1, init=803))
    with pytest.raises(UserError, match=r"does not work .*error 803") as raised:
        list_cuda_devices()
    assert "VISIBLE" not in str(raised.value)  # it is not that


def test_no_cuda_driver(monkeypatch):
    monkeypatch.setattr(module, "_CUDA_LIBRARY", "libcuda-that-is-not-there.so.1")
    with pytest.raises(UserError, match=r"no NVIDIA driver is installed: .*libcuda-that-is-not"):
        list_cuda_devices()
    assert find_gpu_uuid(0) is None


def test_uuid_of_a_cuda_device(monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: FakeCuda(2))
    assert find_gpu_uuid(1) == "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"
    assert find_gpu_uuid(2) is None


@pytest.mark.parametrize("cuda", [FakeCuda(1, init=100), FakeCuda(1, count=999)])
def test_no_uuid(monkeypatch, cuda):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: cuda)
    assert find_gpu_uuid(0) is None
