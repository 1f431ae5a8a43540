"""What `ck` makes of an entry of docker/, with a `docker` that only notes what it was asked."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

NAMES = [
    "image-classification-onnx-loadgen-py.cpu",
    "image-classification-tensorrt-loadgen-py.tensorrt-10",
    "image-classification-tensorrt-loadgen-py.tensorrt-11",
    "image-classification-tensorrt-loadgen-py.tensorrt-8",
]
CPU, TENSORRT = NAMES[0], NAMES[2]
NOT_BUILT = "image-classification-tensorrt-loadgen-py.tensorrt-6"

# CK ends itself where docker failed: its own exit code would be 0.
FAILED = -signal.SIGTERM

FAKE = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["ASKED"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(int(os.environ.get("FAKE_CODE", "0")))
"""


@pytest.fixture
def asked(ck, tmp_path):
    """Runs `ck` with arguments. Returns what it printed and docker's arguments, a list a call."""
    (tmp_path / "docker").write_text(FAKE)
    (tmp_path / "docker").chmod(0o755)
    notes = tmp_path / "asked"

    def run(*arguments, code=0, docker_code=0):
        path = f"{tmp_path}:{ck.environment['PATH']}"
        process = ck(*arguments, code=code, PATH=path, ASKED=str(notes), FAKE_CODE=str(docker_code))
        lines = notes.read_text().splitlines() if notes.exists() else []
        return process, [json.loads(line) for line in lines]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_build(asked, ck, name):
    _, calls = asked("build", f"docker:{name}", "--no-cache")
    entry = str(ck.root / "docker" / name)
    image = f"ctuning/{name}"
    assert calls == [
        ["build", "--no-cache", "-t", image, "-f", f"{entry}/Dockerfile", f"{entry}/../.."]
    ]


@pytest.mark.parametrize("action", ["build", "pull", "push", "run"])
def test_a_failure_is_seen(asked, action):
    process, calls = asked(action, f"docker:{CPU}", code=FAILED, docker_code=3)
    assert len(calls) == 1
    assert "error: docker's exit code is 3" in process.stderr


def test_without_docker(ck, tmp_path):
    (tmp_path / "ck").symlink_to(f"{ck.environment['PATH'].split(':')[0]}/ck")
    process = ck("build", f"docker:{CPU}", code=FAILED, PATH=f"{tmp_path}:/nowhere")
    assert "error: docker's exit code is 127" in process.stderr


def test_pull_of_another_registry(asked):
    _, calls = asked("pull", f"docker:{CPU}", "--org=example")
    assert calls == [["pull", f"example/{CPU}"]]


def read_command(repository, name):
    dockerfile = (repository / "docker" / name / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (.+)$", dockerfile, re.MULTILINE)
    return json.loads(command)


@pytest.mark.parametrize(
    ("name", "flags", "gpu"),
    [
        (CPU, [], []),
        (TENSORRT, [], ["--gpus", "all"]),
        (TENSORRT, ["--scenario=cdi"], ["--device", "nvidia.com/gpu=all"]),
        (TENSORRT, ["--scenario=nvidia-runtime"], ["--runtime=nvidia"]),
    ],
)
def test_run(asked, repository, name, flags, gpu):
    _, (call,) = asked("run", f"docker:{name}", *flags)
    assert call[1 : 1 + len(gpu)] == gpu
    # The command is the image's own.
    assert call[-2:] == [f"ctuning/{name}", *read_command(repository, name)]
    assert "--rm" in call
    assert any(re.fullmatch(r"--user=\d+:1500", flag) for flag in call)


def test_run_a_command(asked, tmp_path):
    """All of the command is the container's: the host's shell would take what follows &&."""
    command = f'ck version && echo "$HOME" $(id) && touch {tmp_path}/touched; false'
    _, (call,) = asked("run", f"docker:{CPU}", "--cmd=--init", f"--command={command}")
    assert call[1] == "--init"
    assert call[-1] == command
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("action", ["build", "pull", "run"])
def test_tensorrt_6_says_why_not(asked, ck, action):
    process, calls = asked(
        action, f"docker:{NOT_BUILT}", "--no-cache", "--command=ck version", code=FAILED
    )
    assert process.stderr.startswith("error: there is no image with TensorRT 6")
    assert "tensorrt-8" in process.stderr
    assert all("--help" in call for call in calls)
    assert (ck.root / "docker" / NOT_BUILT / "README.md").exists()


@pytest.mark.parametrize("name", NAMES)
def test_env_list_is_what_the_image_has(repository, name):
    entry = repository / "docker" / name
    listed = dict(line.split("=") for line in (entry / "env.list").read_text().splitlines())
    dockerfile = (entry / "Dockerfile").read_text()
    (lines,) = re.findall(r"^ENV (.+?[^\\])$", dockerfile, re.MULTILINE | re.DOTALL)
    image = dict(word.split("=") for word in shlex.split(lines.replace("\\\n", "")))
    assert image.pop("PATH").startswith("/home/dvdt/")
    assert listed == image


@pytest.fixture
def images(repository, tmp_path):
    """Sets the digest of each base in a copy, and generates. Returns the process."""
    for path in repository.iterdir():
        if path.is_dir() and path.name not in (".git", ".venv", "docker", "tools"):
            (tmp_path / path.name).symlink_to(path)
    for name in ("docker", "tools"):
        shutil.copytree(repository / name, tmp_path / name)

    def generate(digest):
        file = tmp_path / "tools/docker/images.json"
        listed = json.loads(file.read_text())
        changed = {name: image | {"digest": digest} for name, image in listed.items()}
        file.write_text(json.dumps(changed))
        command = [sys.executable, "tools/generate.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True), listed

    return generate


@pytest.mark.parametrize("digest", [f"sha256:{'0a' * 32}", ""])
def test_a_base_is_pinned_by_its_digest_or_says_not(images, tmp_path, digest):
    process, listed = images(digest)
    assert process.returncode == 0, process.stderr
    for name in NAMES:
        text = (tmp_path / "docker" / name / "Dockerfile").read_text()
        readme = (tmp_path / "docker" / name / "README.md").read_text()
        pinned = f"{listed[name]['base']}@{digest}" if digest else listed[name]["base"]
        assert f"\nARG BASE_IMAGE={pinned}\n" in text
        for said in (text, readme):
            assert ("pinned by its tag alone" in said) == (not digest)
            assert ("pinned by its digest" in said) == bool(digest)


@pytest.mark.parametrize("digest", ["latest", "sha256:0a", f"md5:{'0' * 64}"])
def test_a_digest_that_is_none(images, digest):
    process, _ = images(digest)
    assert process.returncode == 1
    assert f"digest '{digest}' of " in process.stderr


def test_context_has_what_ck_needs_and_no_more(repository):
    kept = {line[1:] for line in (repository / ".dockerignore").read_text().splitlines()
            if line.startswith("!")}  # fmt: skip
    kinds = {path.parent.parent.parent.name for path in repository.glob("*/*/.cm/meta.json")}
    others = {".ckr.json", ".cm", "LICENSE", "locks", "requirements.txt", "src"}
    assert kept == kinds - {"docker"} | others
