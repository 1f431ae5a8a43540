"""What is read is a regular file of bounded size, whoever has put it there."""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ck_mlperf.analyze.page import refuse_to_replace
from ck_mlperf.catalog.experiment_entry import wait_for_ck_lock
from ck_mlperf.common.decode import decode_json
from ck_mlperf.common.downloads import fetch
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import (
    OddFileError,
    hash_file,
    open_regular,
    parse_json,
    read_json,
    read_regular,
    read_yaml,
)
from ck_mlperf.explore.cluster import read_hosts
from ck_mlperf.explore.options import merge_file
from ck_mlperf.images.dataset import parse_labels
from ck_mlperf.images.decode import decode_image
from ck_mlperf.loadgen.job import read_job
from ck_mlperf.loadgen.user_conf import read_user_conf
from ck_mlperf.models.onnx_facts import load_onnx
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.results.experiments import read_records
from ck_mlperf.results.logs import read_result
from ck_mlperf.submission.detail_log import DetailLog
from ck_mlperf.submission.system import read_system
from ck_mlperf.tensorrt.plan_file import read_sidecar

PIXELS = np.zeros((2, 2, 3), np.uint8)
RECIPE: Any = SimpleNamespace(side=2)
PACKAGES = Path(__file__).parents[2] / "package"
PICK_IMAGES = runpy.run_path(str(PACKAGES / "dataset-imagenet-calibration" / "pick_images.py"))[
    "pick_images"
]
# {the file that is read: what reads it}
READERS: dict[str, Callable[[Path], Any]] = {
    "image.jpg": lambda path: decode_image(path, RECIPE, PIXELS),
    "labels.txt": parse_labels,
    "model.onnx": load_onnx,
    "model.json": lambda path: load_model_recipe(path.with_suffix(".onnx")),
    "model.plan.json": lambda path: read_sidecar(path.with_suffix("")),
    "job.json": read_job,
    "ckp-1.0001.json": read_records,
    "sweep.yaml": lambda path: merge_file({"file": path}),
    "system.yaml": lambda path: read_system(path, {}, "experiments"),
    "hosts": read_hosts,
    "mlperf_log_detail.txt": lambda path: read_result(path.parent),
    "any": hash_file,
    "entry/.cm/ck_lock.txt": lambda path: wait_for_ck_lock(path.parents[1]),
    "page.html": refuse_to_replace,
    "images.txt": lambda path: PICK_IMAGES(path, path.parent, path.parent / "made"),
}


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [make_fifo, make_link_to_zero, make_folder])
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_what_has_no_end(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    with pytest.raises((UserError, OSError)):
        READERS[name](path)


@pytest.mark.parametrize("make", [make_fifo, make_link_to_zero])
def test_a_user_conf_that_is_no_file_is_a_problem(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "user.conf")
    (problem,) = read_user_conf(tmp_path / "user.conf", "Offline").problems
    assert "not a regular file" in problem


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OddFileError, match=f"{path}: larger than 4 bytes"):
        read_regular(path, 4)
    link = tmp_path / "link"
    link.symlink_to(path)
    with open_regular(link) as file:
        assert file.read() == b"12345"


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "ckp-1.0001.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="larger than"):
        read_records(path)


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(path)
    for name in ("job.json", "model.json", "ckp-1.0001.json", "model.plan.json"):
        path.rename(tmp_path / name)
        path = tmp_path / name
        with pytest.raises(UserError, match=path.name):
            READERS[name](path)


@pytest.mark.parametrize(
    "read",
    [parse_json, lambda deep: decode_json(deep, list), lambda deep: DetailLog(b":::MLLOG " + deep)],
)
def test_json_of_any_reader_that_is_nested_too_deeply(read: Callable[[bytes], Any]) -> None:
    with pytest.raises(ValueError, match=r"nested too deeply|line 1 is damaged"):
        read(b"[" * 200_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 1000 + "]" * 1000, "nested too deeply"),
        ("a: &x [1, 1]\nb: &y [*x, *x]\nc: [*y, *y]\n", r"an alias \(\*name\)"),
        ("a: [", "while parsing"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_yaml(path)
    with pytest.raises(UserError, match=said):
        merge_file({"file": path})


def test_yaml_within_the_bounds(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("batch: [1, 2]\nenv: {CK_VERBOSE: yes}\n")
    assert read_yaml(path) == {"batch": [1, 2], "env": {"CK_VERBOSE": True}}


def encode(field: int, content: bytes) -> bytes:
    """A field of a protobuf message that is bytes or another message."""
    size, length = len(content), b""
    while size >= 128:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([field << 3 | 2]) + length + bytes([size]) + content


def test_an_onnx_file_that_is_nested_too_deeply(tmp_path: Path) -> None:
    graph = encode(2, b"inner")
    for _ in range(60):  # a graph in an attribute of a node of a graph
        graph = encode(1, encode(4, b"If") + encode(5, encode(6, graph)))
    (tmp_path / "deep.onnx").write_bytes(encode(7, graph))
    with pytest.raises(UserError, match="cannot be read"):
        load_onnx(tmp_path / "deep.onnx")


def test_a_download_is_no_fifo(tmp_path: Path) -> None:
    make_fifo(tmp_path / "weights")
    with pytest.raises(UserError, match="not a regular file"):
        fetch(tmp_path / "copy", f"sha256:{'0' * 64}", [(tmp_path / "weights").as_uri()])
