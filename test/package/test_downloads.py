"""Packages that download, from a server of the test's own: what arrives is checked first."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import io
import json
import shutil
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
CLASSES = 1001  # MLPerf's models: class 0 is background


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A folder, and the URL under which its files are served."""
    folder = tmp_path_factory.mktemp("server")

    def handle(*arguments):
        return QuietHandler(*arguments, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handle) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def grey_jpeg(level: int) -> bytes:
    return cv2.imencode(".jpg", np.full((250, 300, 3), level, np.uint8))[1].tobytes()


def write_grey_classifier(path: Path) -> None:
    """A network with MLPerf's names whose class is 1 + the grey level divided by 16."""
    # score[c] = -(grey/16 - (c - 1))^2 up to a constant: 2 (c-1) grey/16 - (c-1)^2
    centre = np.arange(CLASSES, dtype=np.float32) - 1
    weight = np.tile(2 * centre / 16 / 3, (3, 1)).astype(np.float32)
    mean = np.float32([123.68, 116.78, 103.94]).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Add", ["input_tensor:0", "mean"], ["pixels"]),
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["softmax_tensor:0"]),
        helper.make_node("ArgMax", ["softmax_tensor:0"], ["ArgMax:0"], axis=1, keepdims=0),
    ]
    constants = {"mean": mean, "weight": weight, "bias": -(centre**2)}
    graph = helper.make_graph(
        nodes,
        "grey",
        [helper.make_tensor_value_info("input_tensor:0", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [
            helper.make_tensor_value_info("ArgMax:0", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("softmax_tensor:0", TensorProto.FLOAT, ["N", CLASSES]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


@pytest.fixture
def clean(ck):
    """Take ImageNet and MLPerf's models out of the CK home again."""
    yield ck
    for tags in ("dataset,imagenet", "model,resnet", "model,onnx,mobilenet"):
        ck("rm", "env:*", f"--tags={tags}", "--force", code=None)


@pytest.mark.slow
def test_imagenet_walk_with_a_model_of_1001_classes(clean, server):
    """The 500-image subset (here 3), its labels, and ResNet-50 (here a small network)."""
    ck, (folder, url) = clean, server
    levels = {"ILSVRC2012_val_00000001.JPEG": 5, "ILSVRC2012_val_00000002.JPEG": 14,
              "ILSVRC2012_val_00000003.JPEG": 9}  # fmt: skip
    write_tar(folder / "min.tar", {n: grey_jpeg(16 * level) for n, level in levels.items()})
    listed = "".join(f"{name} {level}\n" for name, level in levels.items())
    listed += "ILSVRC2012_val_00000004.JPEG 0\n"  # the official list goes on
    write_tar(folder / "aux.tar", {"val.txt": listed.encode(), "synsets.txt": b"n0\n"})
    write_grey_classifier(folder / "resnet.onnx")
    downloads = {
        "dataset,imagenet,aux": "aux.tar",
        "dataset,imagenet,val,original,min": "min.tar",
        "model,onnx,resnet,resnet50": "resnet.onnx",
    }
    for tags, name in downloads.items():
        ck("install", "package", f"--tags={tags}", "--quiet", f"--env.PACKAGE_URL={url}/{name}",
           f"--env.PACKAGE_HASH={sha256(folder / name)}")  # fmt: skip
    ck("run", PROGRAM, "--dep_add_tags.weights=model,onnx,resnet50")
    record = json.loads((ck.tmp / "record.json").read_text())
    assert record["accuracy"]["good"] == record["accuracy"]["total"] == 3
    assert record["dataset"]["name"] == "imagenet"
    assert record["dataset"]["count"] == 3
    if importlib.util.find_spec("tensorrt_rtx"):
        check_plan_of_2019(ck)


def check_plan_of_2019(ck) -> None:
    """The weights of the command of 2019, word for word: converted from what is registered."""
    tags = "model,tensorrt,resnet,converted-from-onnx,fp32,maxbatch.32"
    load = ["--env.CK_LOADGEN_SCENARIO=Offline", "--env.CK_BATCH_SIZE=32"]
    failed = ck("run", PROGRAM, f"--dep_add_tags.weights={tags}", *load, code=2)
    (plan,) = ck.tools.glob("model-tensorrt-convert-from-onnx-resnet50*/model.plan")
    sidecar = json.loads(plan.with_name("model.plan.json").read_text())
    assert (sidecar["key"]["precision"], sidecar["key"]["max_batch"]) == ("fp32", 32)
    assert sidecar["recipe"]["name"] == "resnet50"
    assert "GPU" in failed.stderr
    assert "reused" in ck("why", "loadgen", f"--tags={tags}").stdout


@pytest.mark.slow
def test_a_mirror_and_a_local_file_are_checked_too(clean, server):
    ck, (folder, url) = clean, server
    write_grey_classifier(folder / "resnet.onnx")
    install = ["install", "package", "--tags=model,onnx,resnet,resnet50", "--quiet"]
    good = f"--env.PACKAGE_HASH={sha256(folder / 'resnet.onnx')}"
    gone = f"--env.PACKAGE_URL={url}/gone.onnx"
    ck(*install, good, gone, f"--env.PACKAGE_MIRROR={url}/resnet.onnx")
    ck("rm", "env:*", "--tags=model,onnx,resnet", "--force")
    ck(*install, good, gone, f"--env.PACKAGE_FILE={folder / 'resnet.onnx'}")
    shutil.rmtree(next(ck.tools.glob("model-onnx-resnet50*")))
    (folder / "other.onnx").write_bytes(b"other")
    failed = ck(*install, good, gone, f"--env.PACKAGE_FILE={folder / 'other.onnx'}", code=2)
    assert "other.onnx" in failed.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("page.onnx", b"<!DOCTYPE html><html>Sign in</html>", "HTML"),
        ("cut.onnx", b"\x08\x08", "sha256"),
    ],
)
def test_what_is_not_the_file_is_not_installed(ck, server, name, content, said):
    folder, url = server
    (folder / name).write_bytes(content)
    failed = ck("install", "package", "--tags=model,onnx,resnet,resnet50", "--quiet",
                f"--env.PACKAGE_URL={url}/{name}", "--env.PACKAGE_HASH=sha256:" + "0" * 64,
                code=2)  # fmt: skip
    assert said in failed.stderr
    assert failed.stderr.count("error:") == 1
    assert not ck("search", "env", "--tags=model,onnx,resnet").stdout.strip()


def test_a_hash_must_be_given_where_none_is_published(ck):
    failed = ck("install", "package", "--tags=model,onnx,mobilenet", "--quiet", code=2)
    assert "PACKAGE_HASH" in failed.stderr
    assert "md5:" in failed.stderr


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt"])
def test_a_hostile_archive_is_not_unpacked(ck, server, name):
    folder, url = server
    write_tar(folder / "evil.tar", {"val.txt": b"a.JPEG 1\n", name: b"evil"})
    failed = ck("install", "package", "--tags=dataset,imagenet,aux", "--quiet",
                f"--env.PACKAGE_URL={url}/evil.tar",
                f"--env.PACKAGE_HASH={sha256(folder / 'evil.tar')}", code=2)  # fmt: skip
    assert "evil.txt" in failed.stderr
    assert not list(ck.tools.rglob("evil.txt"))
    assert not any(
        "evil" in path.read_text() for path in ck.tools.glob("dataset-imagenet-aux*/aux/*")
    )


@pytest.mark.slow
def test_random_weights_are_for_performance_only(ck):
    flags = ["--dep_add_tags.weights=model,onnx,resnet50,random"]
    failed = ck("run", PROGRAM, *flags, code=2)
    assert "random weights" in failed.stderr
    ck("run", PROGRAM, *flags, "--env.CK_LOADGEN_MODE=PerformanceOnly",
       "--env.CK_LOADGEN_COUNT_OVERRIDE=3", timeout=120)  # fmt: skip
    record = json.loads((ck.tmp / "record.json").read_text())
    assert record["model"]["weights"] == "random"
    assert record["dataset"]["name"] == "digits"
