"""Which images a run measures, by `ck detect`, `ck run` and `ck benchmark` as a user types them."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from ck_mlperf.images.recipe import ImageRecipe

from ..builders.tiny_model import make_onnx, write_recipe

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
LISTED = [(f"ILSVRC2012_val_{number:08}.JPEG", number) for number in range(1, 4)]
RECORDING = ["--repetitions=1", "--record", "--record_repo=local", "--record_uoa=images",
             "--tags=images", "--skip_stat_analysis", "--process_multi_keys",
             "--sleep=0"]  # fmt: skip


@pytest.fixture(scope="module")
def images(ck, tmp_path_factory) -> dict[str, Path]:
    """What a user has: an archive, a folder of classes. A model and the labels are registered."""
    folder = tmp_path_factory.mktemp("images")
    synsets = [f"n{number:08}" for number in range(1000)]
    for name, label in LISTED:
        (folder / "val" / synsets[label]).mkdir(parents=True)
        pixels = np.full((40, 50, 3), 40 * label, np.uint8)
        cv2.imwrite(str(folder / "val" / synsets[label] / name), pixels)
    with tarfile.open(folder / "val.tar", "w") as tar:
        for path in folder.glob("val/*/*.JPEG"):
            tar.add(path, path.name)
    (folder / "aux").mkdir()
    (folder / "aux" / "synsets.txt").write_text("\n".join(synsets))
    (folder / "aux" / "val.txt").write_text("".join(f"{name} {label}\n" for name, label in LISTED))
    make_onnx(folder / "tiny.onnx")
    write_recipe(folder / "tiny.onnx", image=ImageRecipe(side=8).to_dict())
    ck("detect", "soft:dataset.imagenet.aux", f"--full_path={folder / 'aux'}")
    ck("detect", "soft:model.onnx", f"--full_path={folder / 'tiny.onnx'}")
    yield {"archive": folder / "val.tar", "classes": folder / "val"}
    for tags in ("dataset,imagenet", "model,tiny"):
        ck("rm", "env:*", f"--tags={tags}", "--force", code=None)


@pytest.mark.slow
def test_two_sets_are_told_apart_by_their_uids(ck, images):
    command = [PROGRAM, "--dep_add_tags.weights=model,onnx,tiny"]
    for given in images.values():
        ck("detect", "soft:dataset.imagenet.val", f"--full_path={given}")
    refused = ck("run", *command, code=2).stderr
    uids = re.findall(r"--deps\.dataset=(\w+)", refused)
    assert len(uids) == 2
    files = set()
    for verb, pin in (("run", f"dataset={uids[0]}"), ("benchmark", f"images={uids[1]}")):
        uid = pin.partition("=")[2]
        ck(verb, *command, *RECORDING, f"--deps.{pin}")
        record = json.loads((ck.tmp / "record.json").read_text())
        assert {"dataset": uid}.items() <= {d["key"]: d["uoa"] for d in record["deps"]}.items()
        assert record["dataset"]["count"] == 3
        files.add(record["dataset"]["source_files_sha256"])
    (only,) = files  # the same images
    assert only
    assert len(list(ck.tools.glob("dataset-preprocessed-*"))) >= 2
