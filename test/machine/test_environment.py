import getpass
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ck_mlperf.machine.environment import describe_environment

from ..fakes.driver import FakeGpu


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


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


def test_fast_enough_to_be_part_of_each_run(repository, put_driver):
    """It starts git and reads what pip installed; Python's own start is the yardstick."""
    put_driver()

    def measure(call):
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return min(times)

    start_s = measure(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
    assert measure(lambda: describe_environment(repository)) < 5 * start_s


def test_variables_that_change_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    assert describe_environment(tmp_path)["variables"] == {}
    noted = {"CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "4", "GLIBC_TUNABLES": "glibc.x=1"}
    others = {
        "CUDA_HOME": "/usr/local/cuda",
        "OMP_TOOL_LIBRARIES": "/home/me/tool.so",
        "USER": "me",
    }
    monkeypatch.setattr(os, "environ", noted | others)
    assert describe_environment(tmp_path)["variables"] == noted


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


def test_gpus(tmp_path, put_driver):
    put_driver(FakeGpu("NVIDIA GeForce GTX 1080"))
    (gpu,) = describe_environment(tmp_path)["gpus"]
    assert (gpu["name"], gpu["memory_mib"]) == ("NVIDIA GeForce GTX 1080", 81559)
    put_driver(FakeGpu(), failing=["nvmlInit_v2"])
    assert describe_environment(tmp_path)["gpus"] == []


@pytest.fixture
def root(tmp_path):
    """An empty root for the kernel's files: `root(NAME, content)` writes one, `root()` is it."""

    def write(name=None, content=""):
        path = tmp_path / "root" / (name or "")
        if name is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return path

    return write


def test_processor_with_a_limit(root, tmp_path):
    frequency = "sys/devices/system/cpu/cpu0/cpufreq"
    root("proc/cpuinfo", "model name\t: Some CPU\nmicrocode\t: 0x2b\nprocessor\t: 1\n")
    root("sys/fs/cgroup/cpu.max", "150000 100000\n")
    root(f"{frequency}/scaling_governor", "performance\n")
    root(f"{frequency}/scaling_max_freq", "3400000\n")
    cpu = describe_environment(tmp_path, root())["cpu"]
    assert cpu["model"] == "Some CPU"
    assert cpu["microcode"] == "0x2b"
    assert cpu["cores_quota"] == 1.5
    assert cpu["governor"] == "performance"
    assert (cpu["min_clock_mhz"], cpu["max_clock_mhz"]) == (None, 3400)
    root("sys/fs/cgroup/cpu.max", "max 100000\n")
    root("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\n")
    root("proc/device-tree/model", "Jetson AGX Orin\0")
    cpu = describe_environment(tmp_path, root())["cpu"]
    assert (cpu["cores_quota"], cpu["model"]) == (None, "Jetson AGX Orin")
    assert cpu["microcode"] is None


def test_containers(root, tmp_path, monkeypatch):
    for name in ("container", "KUBERNETES_PORT"):
        monkeypatch.delenv(name, raising=False)

    def detect():
        return describe_environment(tmp_path, root())["container"]

    root("proc/1/cgroup", "0::/\n")
    assert detect() is None
    root("proc/1/cgroup", "1:name=systemd:/docker/0123\n")
    assert detect() == {"kind": "docker", "detected_by": "control groups of process 1"}
    monkeypatch.setenv("KUBERNETES_PORT", "tcp://10.0.0.1:443")
    assert detect()["kind"] == "kubernetes"
    root("run/.containerenv")
    assert detect() == {"kind": "podman", "detected_by": ".containerenv"}
    root(".dockerenv")
    assert detect() == {"kind": "docker", "detected_by": ".dockerenv"}
