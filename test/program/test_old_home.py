"""A CK home that commit 2859bbc has made goes on after `git pull`, and builds nothing again.

test/data/home-2859bbc.tar.xz holds what that commit left in CK_REPOS, in CK_TOOLS and in a user's
own folder, after, with TensorRT for RTX 1.7.1.116 and without a GPU:

    ck run program:image-classification-tensorrt-loadgen-py
    ck run ... --dep_add_tags.weights=model,onnx,digits,converted-from-onnx,fp16
    ck install package --tags=model,tensorrt,digits,converted-from-onnx,fp16,input.fp32,maxbatch.1
        --env.TENSORRT_COMPUTE_CAPABILITIES=8.6
    ck detect soft:model.onnx --full_path=.../mine/my_net.onnx
    ck detect soft:dataset.imagenet.val --full_path=.../mine/images

The data set was cut to 20 images (make_digits.py --count 20). @HOME@, @PYTHON@ and @CK@ stand
for folders that are noted everywhere. The plan's bytes, which no test here runs, are a line of
text, and the sidecar and CK's entry say so; digits.onnx and my_net.onnx are this repository's.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from ..conftest import ROOT, CkHome

PROGRAM = "program:image-classification-tensorrt-loadgen-py"
ARCHIVE = ROOT / "test" / "data" / "home-2859bbc.tar.xz"
PLAN = "model,tensorrt,digits,converted-from-onnx,fp16,input.fp32,maxbatch.1"


class OldHome(CkHome):
    """The home of the archive, with this commit's checkout in it."""

    def make_home(self, folder: Path) -> None:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        network = ROOT / "package" / "model-onnx-digits" / "digits.onnx"
        shutil.copy(network, folder / "tools" / "model-onnx-digits")
        shutil.copy(network, folder / "mine" / "my_net.onnx")
        installed_ck = importlib.util.find_spec("ck")
        assert installed_ck is not None
        assert installed_ck.origin is not None
        places = {
            "@HOME@": str(folder),
            "@PYTHON@": str(Path(sys.executable).parent),
            "@CK@": str(Path(installed_ck.origin).parent / "repo"),
        }
        for path in [*folder.glob("repos/**/*"), *folder.glob("tools/**/*")]:
            if path.suffix in (".json", ".sh", ".txt"):
                text = path.read_text()
                for placeholder, place in places.items():
                    text = text.replace(placeholder, place)
                path.write_text(text)
        self.environment["CUDA_VISIBLE_DEVICES"] = ""  # as it was where the plan was made

    def list_installed(self) -> set[str]:
        """What was made of models and images; a commit may want further libraries."""
        names = {path.name for path in self.tools.iterdir()}
        return {name for name in names if not name.startswith("lib-python-package-")}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> OldHome:
    return OldHome(tmp_path_factory.mktemp("old"))


@pytest.mark.parametrize(
    "flags",
    [[], ["--dep_add_tags.weights=model,onnx,digits,converted-from-onnx,fp16"],
     ["--dep_add_tags.weights=model,onnx,my_net"]],
)  # fmt: skip
def test_models_and_images_are_taken_as_they_are(home, flags):
    installed = home.list_installed()
    printed = home("run", PROGRAM, *flags).stdout
    # That commit's runs needed no msgspec.
    assert home.list_installed() - {"lib-python-package-msgspec"} == installed
    made = [line for line in printed.splitlines() if "Installing to" in line]
    assert all("/lib-python-package-" in line for line in made)
    record = json.loads((home.tmp / "record.json").read_text())
    assert record["accuracy"]["total"] == 20


def test_images_that_were_installed_are_preprocessed_again(home):
    """CK looks for the files of what the images were made with: libraries that are gone."""
    home("run", PROGRAM, "--dep_add_tags.images=first.7")
    record = json.loads((home.tmp / "record.json").read_text())
    assert record["accuracy"]["total"] == 7


def test_images_that_were_registered_are_known(home):
    installed = home.list_installed()
    home("install", "package", "--tags=dataset,imagenet,preprocessed,side.96", "--quiet")
    (made,) = home.list_installed() - installed
    manifest = json.loads((home.tools / made / "preprocessed" / "manifest.json").read_text())
    assert manifest["count"] == 3


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="NOT RUN: needs TensorRT for RTX (pip install tensorrt-rtx-cu13)",
)
def test_a_plan_is_not_built_again(home):
    """But where the plan would be another one: with another version, say, than it was built with.

    A plan that took images itself, as most did, is: its samples are prepared before it now.
    """
    done = home("why", "loadgen", f"--tags={PLAN}", code=None)
    if done.returncode:
        _, reason, *_ = done.stdout.splitlines()
        assert "model.plan: version is" in reason
        assert reason.endswith("the plan was built with 1.7.1.116")
    else:
        assert done.stdout.startswith("reused: ")
