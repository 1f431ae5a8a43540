"""Lists of tags."""

from __future__ import annotations

from ck_mlperf.common.tags import is_ck_tag, join_tags, split_tags


def test_lists_of_tags():
    assert split_tags("model, onnx,,digits") == {"model", "onnx", "digits"}
    assert split_tags("") == set()
    assert join_tags({"onnx", "model"}) == "model,onnx"


def test_tags_of_cks_own():
    own = ["host-os-linux-64", "target-os-linux-64", "64bits", "v0", "v5.12", "v1.7.1.post1", "tmp"]
    assert all(map(is_ck_tag, own))
    assert not any(map(is_ck_tag, ["vgg16", "v", "resnet", "fp32", "maxbatch.1", "tmp2"]))
