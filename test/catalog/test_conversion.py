"""Which converted file is taken; `test/package/` converts."""

from __future__ import annotations

import json

import pytest

from ck_mlperf.catalog.conversion import Conversion, check_source, judge_conversion
from ck_mlperf.catalog.kernel import Catalog
from ck_mlperf.catalog.request import read_request
from ck_mlperf.common.errors import UserError
from ck_mlperf.models.model_file import hash_model, read_states

from ..fakes.kernel import FakeKernel

IMAGE = {"side": 28, "crop": 1.0, "interpolation": "area", "channels": "rgb", "aspect": "keep"}
RECIPE = {"name": "digits", "dataset": "digits", "image": IMAGE, "sha256": "a" * 64}
RIGHT = {"source_sha256": "a" * 64, "precision": "fp16"}


@pytest.fixture
def kernel(tmp_path) -> FakeKernel:
    """CK with an ONNX file, a file converted from it, and calibration images."""
    kernel = FakeKernel()
    kernel.add("source", "model,onnx,image-classification,digits", recipe=RECIPE)
    return kernel


def add_converted(kernel, precision: str, conversion: dict) -> None:
    kernel.add(
        "converted",
        f"model,onnx,image-classification,converted-from-onnx,digits,{precision},"
        "input.native,output.class",
        deps={"onnx": "source"},
        recipe={**RECIPE, "conversion": {**conversion, "precision": precision}},
    )


def add_calibration(kernel, folder, digest: str, original: str = "original") -> None:
    manifest = {"format": 1, "dataset": "digits", "count": 500, "recipe": IMAGE, "opencv": "5.0"}
    digests = dict.fromkeys(["labels_sha256", "source_list_sha256"], "0" * 64)
    made = {**manifest, **digests, "images_sha256": digest}
    (folder / "manifest.json").write_text(json.dumps(made))
    kernel.add("original", "dataset,calibration,digits,original")
    tags = "dataset,calibration,digits,preprocessed,using-opencv,side.28,crop.1000,inter.area,rgb8"
    kernel.add("images", f"{tags},aspect.keep", str(folder), deps={"dataset": original})


def convert(kernel, precision: str, count: str = "") -> Conversion:
    catalog = Catalog(kernel)
    request = read_request({"model", "tensorrt", "digits", precision}).for_conversion()
    return Conversion(catalog, request, catalog.load_pinned("onnx", "source"), count=count)


def test_a_conversion_of_another_file_is_not_taken(kernel):
    source = Catalog(kernel).load_pinned("onnx", "source")
    assert judge_conversion(Catalog(kernel), RIGHT, source) == []
    other = RIGHT | {"source_sha256": "b" * 64}
    (reason,) = judge_conversion(Catalog(kernel), other, source)
    assert "source_sha256" in reason
    assert "aaaa" in reason
    assert "bbbb" in reason


def register_model(kernel, folder, **notes) -> None:
    """CK with a model and its weights in another file, as they are now."""
    model = folder / "model.onnx"
    recipe = {**RECIPE, "sha256": hash_model(model, ["w"]), "external_files": ["w"]}
    notes = {"files": [[*state] for state in read_states(model, ["w"])], **notes}
    kernel.add("source", "model,onnx,digits", str(model), recipe=recipe, **notes)


def test_weights_in_another_file_are_part_of_the_source(kernel, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "w").write_bytes(b"0123")
    register_model(kernel, tmp_path)
    made = {"source_sha256": kernel.entries["source"]["customize"]["recipe"]["sha256"]}
    catalog = Catalog(kernel)

    def judge() -> list[str]:
        return judge_conversion(catalog, made, catalog.load_pinned("onnx", "source"))

    assert judge() == []
    (tmp_path / "w").write_bytes(b"0123")  # touched
    assert judge() == []
    (tmp_path / "w").write_bytes(b"3210")
    with pytest.raises(UserError, match=r"has changed .*ck detect soft:model\.onnx --full_path="):
        judge()
    register_model(kernel, tmp_path)
    (reason,) = judge()
    assert reason.startswith("source_sha256 is ")


@pytest.mark.parametrize("content", [b"graph", b"..\n\x08location\x12\x01w.."])
def test_a_model_that_an_earlier_version_registered(kernel, tmp_path, content):
    model = tmp_path / "model.onnx"
    model.write_bytes(content)
    recipe = {**RECIPE, "sha256": hash_model(model)}
    kernel.add("source", "model,onnx,digits", str(model), recipe=recipe)
    source = Catalog(kernel).load_pinned("onnx", "source")
    if content == b"graph":
        check_source(source)
        return
    with pytest.raises(UserError, match=r"left them out of its sha256\. Register it again"):
        check_source(source)


def test_what_is_there_is_taken(kernel):
    add_converted(kernel, "fp16", RIGHT)
    assert convert(kernel, "fp16").obtain().uid == "converted"
    assert kernel.installed == []


def test_what_does_not_say_what_its_source_is_is_made_again(kernel, capsys):
    """Of a source that was registered again; an older version made the converted file."""
    add_converted(kernel, "fp16", RIGHT)
    conversion = convert(kernel, "fp16")
    conversion.source.recipe["source_md5"] = "d" * 32
    conversion.obtain()
    assert len(kernel.installed) == 1
    assert "before the network and the md5 of its source were noted" in capsys.readouterr().out


def test_what_was_made_of_other_bytes_is_made_again(kernel, capsys):
    add_converted(kernel, "fp16", {"source_sha256": "b" * 64})
    convert(kernel, "fp16").obtain()
    (request,) = kernel.installed
    assert request["data_uoa"] == "model-onnx-convert"
    assert request["preset_deps"] == {"onnx": "source"}
    assert capsys.readouterr().out.startswith("converting again: /: source_sha256 is aaaa")


def test_int8_depends_on_the_calibration_images_that_are_registered(kernel, tmp_path):
    conversion = {**RIGHT, "calibration": {"images_sha256": "c" * 64, "count": 500}}
    add_converted(kernel, "int8", conversion)
    assert convert(kernel, "int8").find()[0].uid == "converted"  # none are registered any more
    add_calibration(kernel, tmp_path, "c" * 64)
    assert convert(kernel, "int8").find()[0].uid == "converted"
    assert convert(kernel, "int8", "500").find()[0].uid == "converted"
    assert "calibration.count is 12" in convert(kernel, "int8", "12").find()[1][0]
    add_calibration(kernel, tmp_path, "d" * 64)
    assert "calibration.images_sha256 is dddd" in convert(kernel, "int8").find()[1][0]
    add_calibration(kernel, tmp_path, "c" * 64, original="forgotten")
    assert "are others" in convert(kernel, "int8").find()[1][0]
