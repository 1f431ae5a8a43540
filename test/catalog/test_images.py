"""Which images a run takes; `test/program/` runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ck_mlperf.catalog.images import Preprocessing, resolve_images
from ck_mlperf.catalog.install import resolve
from ck_mlperf.catalog.kernel import Catalog, Dep
from ck_mlperf.catalog.step import Installation
from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.recipe import ImageRecipe

from ..builders.images import write_images
from ..fakes.kernel import FakeKernel

IMAGE = ImageRecipe(side=8)
RECIPE = {"name": "net", "dataset": "imagenet", "image": IMAGE.to_dict()}
SET_TAGS = ",".join(["dataset", "preprocessed", "imagenet", "full", *IMAGE.tags()])


class Images(FakeKernel):
    """A CK with sets of images, each in a folder of its own below `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.packages["dataset-preprocessed"] = {"tags": ["dataset", "preprocessed"]}

    def add_originals(self, uid: str, tags: str = "") -> Path:
        folder = self.folder / uid
        write_images(folder)
        tags = ",".join(filter(None, ["dataset,imagenet,val,original", tags]))
        self.add(uid, tags, str(folder))
        return folder

    def add_set(self, uid: str, original: str, image: ImageRecipe = IMAGE) -> None:
        made = self.folder / uid
        preprocess(Path(self.entries[original]["customize"]["full_path"]), made, image)
        self.add(uid, SET_TAGS, str(made), deps={"dataset": original})
        self.entries[uid]["deps"]["dataset"] = {"uoa": original, "dict": self.entries[original]}

    def resolve(self, **named: str) -> tuple[str, str]:
        """(UID of the set, of the originals) of a run with --deps.images and --deps.dataset."""
        images = Dep({"tags": "dataset,preprocessed", "uoa": named.get("images", "")})
        dataset = Dep({"tags": "dataset,original", "uoa": named.get("dataset", "")})
        resolve_images(Catalog(self), images, dataset, RECIPE)
        return images.uid, dataset.uid


@pytest.fixture
def kernel(tmp_path) -> Images:
    """CK with two sets of originals; `first` has been preprocessed."""
    kernel = Images(tmp_path)
    for uid in ("first", "second"):
        kernel.add_originals(uid)
    kernel.add_set("first-set", "first")
    return kernel


def test_two_sets_are_refused_and_each_can_be_named(kernel):
    with pytest.raises(UserError) as refused:
        kernel.resolve()
    for uid in ("first", "second"):
        assert f"--deps.dataset={uid} " in str(refused.value)
    assert kernel.resolve(dataset="first") == ("first-set", "first")
    assert not kernel.installed
    made, original = kernel.resolve(dataset="second")
    assert (made, original) == ("installed-1", "second")
    assert kernel.installed[0]["preset_deps"] == {"dataset": "second"}


def test_one_set_needs_no_name(kernel):
    del kernel.entries["second"]
    assert kernel.resolve() == ("first-set", "first")


def test_a_tag_that_one_set_has_tells_them_apart(kernel):
    kernel.entries["second"]["tags"].append("min")
    dataset = Dep({"tags": "dataset,original,min"})
    resolve_images(Catalog(kernel), Dep({"tags": "dataset,preprocessed"}), dataset, RECIPE)
    assert dataset.uid == "second"


def test_images_may_be_named_as_a_set_or_as_originals(kernel):
    assert kernel.resolve(images="first-set") == ("first-set", "first")
    assert kernel.resolve(images="first") == ("first-set", "first")
    assert kernel.resolve(images="second") == ("installed-1", "second")
    assert kernel.resolve(images="first-set", dataset="first") == ("first-set", "first")


@pytest.mark.parametrize("images", ["first-set", "first"])
def test_two_names_of_different_images(kernel, images):
    (kernel.folder / "first" / "val_map.txt").unlink()  # nothing is looked at
    with pytest.raises(UserError, match="different images"):
        kernel.resolve(images=images, dataset="second")
    assert not kernel.installed


def test_what_cannot_be_measured_is_refused_with_what_is_wanted(kernel):
    kernel.add("model", "model,onnx")
    kernel.add("calibration", "dataset,imagenet,calibration,original")
    kernel.add("digits", "dataset,digits,val,original")
    kernel.add_set("other", "first", ImageRecipe(side=16))
    for uid, said in (
        ("model", r"want preprocessed images \(dataset,preprocessed\) or originals"),
        ("calibration", "no labels"),
        ("digits", "wants images of imagenet"),
        ("other", "side.16 .* wants .*side.8 "),
    ):
        with pytest.raises(UserError, match=f"--deps.images={uid}.*{said}"):
            kernel.resolve(images=uid)
    with pytest.raises(UserError, match="want one with dataset,imagenet,original,val"):
        kernel.resolve(dataset="first-set")
    with pytest.raises(UserError, match="no such entry"):
        kernel.resolve(dataset="none")


@pytest.mark.parametrize("named", ["images", "dataset"])
def test_a_set_is_made_again_where_its_originals_have_changed(kernel, capsys, named):
    uid = {"images": "first-set", "dataset": "first"}[named]
    labels = kernel.folder / "first" / "val_map.txt"
    text = labels.read_text()
    labels.write_text(text.replace("39.png 273", "39.png 274"))
    assert kernel.resolve(**{named: uid}) == ("installed-1", "first")
    assert kernel.installed[0]["preset_deps"] == {"dataset": "first"}
    said = capsys.readouterr().out
    assert said.startswith(f"preprocessing again: {kernel.folder / 'first-set'}: the list of ")
    labels.write_text(text)
    assert kernel.resolve(**{named: uid}) == ("first-set", "first")


def test_originals_that_were_registered_again_are_those_of_the_set(kernel):
    """`ck detect` gives them another UID."""
    kernel.entries["again"] = kernel.entries.pop("first")
    assert kernel.resolve(dataset="again") == ("first-set", "again")


def test_a_set_whose_originals_are_gone_is_taken(kernel):
    shutil.rmtree(kernel.folder / "first")
    assert kernel.resolve(images="first-set") == ("first-set", "")
    del kernel.entries["first"]
    with pytest.raises(UserError) as refused:
        kernel.resolve()
    for uid in ("first-set", "second"):
        assert f"--deps.images={uid} " in str(refused.value)
    del kernel.entries["second"]
    assert kernel.resolve() == ("first-set", "")


def test_a_set_that_has_changed_and_was_forgotten_says_so(kernel):
    del kernel.entries["first"]
    os.truncate(kernel.folder / "first" / "00.png", 10)
    with pytest.raises(UserError, match=r"have changed.*ck detect .*/first`"):
        kernel.resolve(images="first-set")


def install(kernel: Images, original: str) -> tuple[str, list[str]]:
    """(what its folder's name has, its tags) where `ck install` preprocesses an original."""
    customize: dict[str, str] = {}
    tags = ["dataset", "preprocessed", "imagenet"]
    dataset = {"tags": "dataset,original", "uoa": original}
    environment = {"DATASET": "imagenet", "DATASET_PART": "val"}
    request = {"ck_kernel": kernel, "deps": {"dataset": dataset}, "tags": tags,
               "install_env": environment, "customize": customize}  # fmt: skip
    resolve(Installation(request), {"resolve": "images"})
    assert dataset["uoa"] == original
    return customize["extra_suggested_path"], tags


def test_each_original_has_a_folder_of_its_own(kernel):
    (first, first_tags), (second, second_tags) = install(kernel, "first"), install(kernel, "second")
    assert first != second
    assert set(first_tags) != set(second_tags)
    assert install(kernel, "first") == (first, first_tags)
    with pytest.raises(UserError, match=r"--deps\.dataset=first"):
        install(kernel, "")


def test_mlperfs_calibration_list_is_picked_from_originals_that_are_named(kernel):
    def pick(original: str) -> str:
        customize: dict[str, str] = {}
        dep = {"tags": "dataset,imagenet,val,original", "uoa": original}
        request = {"ck_kernel": kernel, "deps": {"dataset": dep}, "tags": ["calibration"],
                   "install_env": {}, "customize": customize}  # fmt: skip
        resolve(Installation(request), {"resolve": "originals"})
        assert dep["dict"] == kernel.entries[original]
        return customize["extra_suggested_path"]

    with pytest.raises(UserError, match=r"--deps\.dataset=second"):
        pick("")
    assert pick("first") != pick("second")


def test_calibration_images_are_taken_only_where_they_are_asked_for(kernel):
    kernel.add("calibration", "dataset,imagenet,calibration,original")
    found, _ = Preprocessing(
        Catalog(kernel), SET_TAGS.split(","), Catalog(kernel).load_pinned("dataset", "first")
    ).find()
    assert found.uid == "first-set"
    kernel.entries["first-set"]["tags"].append("calibration")
    with pytest.raises(UserError, match="calibration images have no labels"):
        kernel.resolve(images="first-set")
    assert kernel.resolve(dataset="first") == ("installed-1", "first")
