"""Images, really built and run: `make test-containers`.

The TensorRT image stands on a stand-in for NVIDIA's base, and no test has a GPU.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import unquote

import pytest

from .conftest import CPU, EXPERIMENTS, TENSORRT, build, run_docker

pytestmark = pytest.mark.containers

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
SUMMARY = f"$CK_REPOS/ck-mlperf/{PROGRAM.replace(':', '/')}/tmp/mlperf_log_summary.txt"
EXPERIMENT = "mlperf.digits.multistream.performance"
BENCHMARK = (
    f"ck benchmark {PROGRAM} --repetitions=1 --env.CK_SILENT_MODE "
    "--env.CK_LOADGEN_MODE=PerformanceOnly --env.CK_LOADGEN_SCENARIO=MultiStream "
    "--env.CK_LOADGEN_MULTISTREAMNESS=30 --env.CK_BATCH_SIZE=30 "
    "--env.CK_LOADGEN_COUNT_OVERRIDE=100 --env.CK_LOADGEN_DATASET_SIZE=500 "
    "--env.CK_LOADGEN_BUFFER_SIZE=1024 --dep_add_tags.weights=model,onnx,digits "
    f"--record --record_repo=local --record_uoa={EXPERIMENT} --tags=mlperf,digits "
    "--skip_print_timers --skip_stat_analysis --process_multi_keys --sleep=0"
)
MAX_BYTES = 700e6
MAX_REBUILD_S = 15

# What a command of the README is given in place of a GPU, and of a user at a terminal.
IN_PLACE_OF = {
    f"export IMAGE={TENSORRT}": f"export IMAGE={CPU}",
    "docker run --gpus all": "docker run $DOCKER_RUN_FLAGS",
    "$(id -u)": "1000",
    "sudo ": "",
    "model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32": "model,onnx,digits",
    "model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.30": "model,onnx,digits",
    "tensorrt.resnet": "onnx.digits",
    "tensorrt,resnet": "onnx,digits",
    "--skip_stat_analysis": "--skip_stat_analysis --sleep=0",
    "COUNT_OVERRIDE=1440": "COUNT_OVERRIDE=100",
}


def test_size_and_leftovers(cpu):
    size = run_docker("image", "inspect", "--format", "{{.Size}}", f"ctuning/{CPU}").stdout
    assert int(size) < MAX_BYTES
    # Nothing that a build downloaded, nor what its runs left; and no registry's name.
    left = cpu.run(
        "find / -xdev '(' -path '/var/lib/apt/lists/*' -o -name '*.deb' -o -name '*.whl' "
        "-o -path '/home/dvdt/.cache/*' -o -path '/tmp/*' -o -path '*/program/*/tmp/*' "
        "-o -name pip.conf ')' -type f -print 2>/dev/null || true"
    )
    # python3-venv brings the wheels that a new virtual environment gets.
    kept = [
        name for name in left.stdout.split() if not name.startswith("/usr/share/python-wheels/")
    ]
    assert kept == []


def test_what_a_user_of_the_host_finds(cpu):
    script = (
        "id -u; id -g; umask; cd; pwd; "
        "python -c 'import getpass; print(getpass.getuser())'; ck where repo:ck-mlperf"
    )
    wanted = ["1000", "1500", "0002", "/home/dvdt", "dvdt", "/home/dvdt/CK_REPOS/ck-mlperf"]
    assert cpu.run(script).stdout.split() == wanted
    assert cpu.run(script, env_file=False).stdout.split() == wanted
    assert cpu.run("id", "-u", user=4242).stdout == "4242\n"
    cpu.run("exit", "7", code=7)


def test_default_command(cpu):
    printed = cpu.run().stdout
    assert "accuracy=99.200%, good=496, total=500" in printed
    assert "not TensorRT" in printed
    assert "No errors encountered during test." in printed.splitlines()[-1]


def test_two_users_one_folder(cpu, ck, results):
    mount = ("--volume", f"{results}:{EXPERIMENTS}")
    for user in (1000, 1001):
        printed = cpu.run(f"{BENCHMARK} && cat {SUMMARY}", user=user, flags=mount).stdout
        assert "| number of queries run" in printed
        assert "MLPerf Results Summary" in printed
    for path in [results, *results.rglob("*")]:
        status = path.stat()
        assert (status.st_gid, status.st_mode & stat.S_IWGRP) == (1500, stat.S_IWGRP), path
    owners = {path.stat().st_uid for path in results.rglob("ckp-*.0001.json")}
    assert owners == {1000, 1001}

    # CK on the host reads what both recorded.
    ck("add", "experiment:first", "--common_func")
    ck.experiments.rename(ck.experiments.with_name("own"))
    ck.experiments.symlink_to(results)
    try:
        listed = ck("list_points", f"experiment:{EXPERIMENT}").stdout
        points = [line.strip() for line in listed.splitlines() if re.search(r"[0-9a-f]{16}$", line)]
        assert len(points) == 2
        meta = json.loads(ck("load", f"experiment:{EXPERIMENT}", "--out=json").stdout)
        assert {"mlperf", "digits"} <= set(meta["dict"]["tags"])
    finally:
        ck.experiments.unlink()
        ck.experiments.with_name("own").rename(ck.experiments)


def test_volumes_keep_what_a_run_installs(cpu):
    """As the README has it: else each container installs, converts and builds anew."""
    name = f"test-{uuid.uuid4().hex}"
    flags = ("--volume", f"{name}.tools:/home/dvdt/CK_TOOLS",
             "--volume", f"{name}.local:/home/dvdt/CK_REPOS/local")  # fmt: skip
    tags = "dataset,calibration,digits"
    show = f"ck search env --tags={tags}"
    try:
        cpu.run(f"ck install package --tags={tags} --quiet", flags=flags)
        assert cpu.run(show, user=1001, flags=flags).stdout.startswith("local:env:")
        assert "env:" not in cpu.run(show, user=1001).stdout
    finally:
        run_docker("volume", "rm", f"{name}.tools", f"{name}.local")


def test_rebuild_after_a_change(cpu, ck, base):
    path = ck.root / "src/ck_mlperf/results/logs.py"
    text = path.read_text()
    path.write_text(text + "\n# changed\n")
    try:
        started = time.monotonic()
        build(ck, CPU, base)
        assert time.monotonic() - started < MAX_REBUILD_S
    finally:
        path.write_text(text)


def test_sbom(cpu, repository, tmp_path):
    file = tmp_path / "bom.json"
    script = repository / "tools" / "sbom.py"
    subprocess.run([sys.executable, script, f"ctuning/{CPU}", file], check=True)
    bom = json.loads(file.read_text())
    assert bom["bomFormat"] == "CycloneDX"
    purls = {component["name"]: component.get("purl", "") for component in bom["components"]}
    assert purls["ck"] == "pkg:pypi/ck@2.6.4"
    assert purls["mlcommons_loadgen"].startswith("pkg:pypi/mlcommons-loadgen@")
    assert purls["libc6"].startswith("pkg:deb/debian/libc6@")
    assert "cyclonedx-bom" not in purls
    # What pip installed is what the locks pin, and nothing else; pip itself is Debian's.
    locks = [(repository / "locks" / f"{name}.txt").read_text() for name in ("run", "ck")]
    pinned = set(re.findall(r"^([\w.-]+==[\w.+-]+)", "\n".join(locks), re.MULTILINE))
    python = [unquote(purl) for purl in purls.values() if purl.startswith("pkg:pypi/")]
    found = {purl.removeprefix("pkg:pypi/").replace("@", "==") for purl in python}
    assert {name.partition("==")[0] for name in found - pinned} == {"pip"}
    failed = subprocess.run([sys.executable, script, "localhost/none:none", file],
                            capture_output=True, text=True)  # fmt: skip
    assert failed.returncode == 1
    assert "error: no SBOM of localhost/none:none" in failed.stderr


def test_the_page_on_containers(cpu, ck, repository, tmp_path):
    """Its commands, but the build, which is what `cpu` did."""
    page = (repository / "docs" / "containers.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    blocks.remove("ck build docker:${IMAGE}\n")
    script = "".join(blocks)
    for text, other in IN_PLACE_OF.items():
        assert text in script, text
        script = script.replace(text, other)
    repos = tmp_path / "repos"  # a user's that has recorded nothing yet
    environment = ck.environment | {"CK_REPOS": str(repos), "CK_TOOLS": str(tmp_path / "tools")}
    repos.mkdir()
    (repos / "ck-mlperf").symlink_to(ck.root)
    script = f"ck import repo --path={repos}/ck-mlperf --quiet\n{script}"
    process = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout[-8000:] + process.stderr[-8000:]
    assert "accuracy=99.200%" in process.stdout
    assert process.stdout.count("| number of queries run") == 2
    name = "mlperf.closed.image-classification.onnx.digits.multistream.performance"
    (point,) = Path(repos, "local", "experiment", name).glob("ckp-*.0001.json")
    assert point.stat().st_uid == 1000


def test_tensorrt_build(tensorrt):
    """A build without a GPU resolves TensorRT where its base has it, and says what is not there."""
    found = tensorrt.run("ck show env --tags=lib,python-package").stdout
    for name, version in (("tensorrt-11", "11.2.1"), ("pycuda", "2026.1")):
        assert re.search(rf"\b{re.escape(version)}\b.*\b{name}\b", found), found
    assert "python-package,cuda-bindings" in found or "cuda-bindings" in found
    assert ("NOT IN THE IMAGE" in tensorrt.log) != ("ResNet" in found)


def test_tensorrt_runs_on_the_cpu(tensorrt, results):
    accuracy = tensorrt.run(f"ck run {PROGRAM} --skip_print_timers")
    assert "accuracy=99.200%, good=496, total=500" in accuracy.stdout
    assert "no GPU, not TensorRT" in accuracy.stdout
    tensorrt.run(BENCHMARK, flags=("--volume", f"{results}:{EXPERIMENTS}"))
    (point,) = results.glob(f"{EXPERIMENT}/ckp-*.0001.json")
    run = json.loads(point.read_text())["characteristics_list"][0]["run"]
    assert run["engine"]["name"] == "onnxruntime-cpu"


def test_tensorrt_says_that_there_is_no_gpu(tensorrt):
    tags = "model,tensorrt,digits,converted-from-onnx,fp32,maxbatch.32"
    process = tensorrt.run(f"ck run {PROGRAM} --dep_add_tags.weights={tags}", code=2)
    first = process.stderr.splitlines()[0]
    assert first.startswith("warning: this container sees no NVIDIA GPU: start it with --gpus all")
    assert (
        "error: TensorRT 11.2.1 builds a plan on the GPU that will run it, and there is none"
        in (process.stderr)
    )
    assert "accuracy=" not in process.stdout


def test_another_tensorrt_than_the_base_has_is_refused(tensorrt):
    """The build's own command, asked for what its base has not: pip must not get another."""
    command = "PIP_NO_INDEX=1 ck install package --tags=lib,python-package,tensorrt-8 --quiet"
    assert "tensorrt<9,>=8.6" in tensorrt.run(command, code=2).stderr
