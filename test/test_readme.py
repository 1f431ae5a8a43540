"""What README.md says is true: its commands run, in a fresh clone, as a user would type them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# The README's commands that need another machine's files: what they are given here instead.
MODELS = "$MODELS"
IMAGENET = "$IMAGENET"
DOWNLOAD = "ck install package --tags=dataset,imagenet,val,original,min"

# A sweep of the README, and a short one in its place.
SWEEP = "--scenario=SingleStream,MultiStream --batch=1,2,4..16 --count=700 --repetitions=3"
SHORT_SWEEP = "--scenario=MultiStream --batch=2 --count=64 --repetitions=1"


# The pages that a new user reads after the README, in order.
GUIDE = ("install", "models", "images", "run", "record", "explore", "analyze")


def read_blocks(page: Path) -> list[str]:
    """A page's shell blocks, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_links(repository):
    for document in [repository / "README.md", *(repository / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


class Clone:
    """A clone of this checkout in an empty folder, for a user with an empty home."""

    first_run_s: float

    def __init__(self, repository: Path, folder: Path) -> None:
        self.folder = folder / "ck-mlperf"
        self.home = folder / "home"
        self.home.mkdir()
        shutil.copytree(repository, self.folder, ignore=self.ignore)
        kept = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
        self.environment = {k: os.environ[k] for k in os.environ if k in kept or k[:4] == "PIP_"}
        self.environment |= {"HOME": str(self.home), "CK_REPOS": "/nowhere", "CK_TOOLS": "/nowhere"}

    @staticmethod
    def ignore(folder: str, names: list[str]) -> set[str]:
        built = {".git", ".venv", ".ck", ".nox", "tmp", "__pycache__"}
        return {name for name in names if name in built or name.endswith("_cache")}

    def run(self, script: str, **environment: str) -> str:
        process = subprocess.run(
            ["bash", "-euc", script],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert process.returncode == 0, f"{script}\n{process.stdout[-5000:]}\n{process.stderr}"
        return process.stdout


@pytest.fixture(scope="module")
def clone(repository, tmp_path_factory) -> Clone:
    return Clone(repository, tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def first_run(clone) -> str:
    """What `make run` prints in the fresh clone."""
    started = time.monotonic()
    printed = clone.run("make run")
    clone.first_run_s = time.monotonic() - started
    return printed


def test_make_run(clone, first_run):
    at = [
        first_run.rindex(text)
        for text in ("accuracy=99", "LATENCIES", "LoadGen 6", "MLPerf Inference", "Next, ")
    ]
    assert at == sorted(at)
    assert "LoadGen 6.0.17: VALID" in first_run
    assert "not ImageNet" in first_run.splitlines()[1]
    assert "not TensorRT" in first_run.splitlines()[1]
    assert first_run.splitlines()[-1].startswith("Next, ")
    started = time.monotonic()
    clone.run("make run")
    assert time.monotonic() - started < clone.first_run_s / 2, "it installed again"
    # pip asks rustc for its version; where that is rustup's, it makes a folder of its own.
    written = set(os.listdir(clone.home)) - {".rustup"}
    assert not written, "make run wrote outside the checkout"


def test_the_example_in_the_readme_is_what_make_run_prints(repository, first_run):
    (example,) = re.findall(r"^```text\n(.*?)^```$", (repository / "README.md").read_text(),
                            re.MULTILINE | re.DOTALL)  # fmt: skip

    def without_figures(text: str) -> list[str]:
        words = re.sub(r"[\d.,+-]+|%", "", text.replace("...", "")).split()
        return sorted(set(words))

    assert set(without_figures(example)) <= set(without_figures(first_run))


def test_the_walk(clone, first_run, repository, tmp_path):
    blocks = read_blocks(repository / "README.md")
    assert [blocks[0], blocks[-1]] == ["make run\n", "make test\n"]
    walk = blocks[1:-1]
    assert walk[0].startswith('eval "$(make -s ck-env)"\n')
    for name in GUIDE:
        walk += read_blocks(repository / "docs" / f"{name}.md")
    models, images, aux = (tmp_path / name for name in ("models", "images", "aux"))
    models.mkdir()
    for suffix in ("onnx", "json"):
        shutil.copy(repository / f"package/model-onnx-digits/digits.{suffix}",
                    models / f"my_net.{suffix}")  # fmt: skip
    recipe = models / "my_net.json"
    recipe.write_text(recipe.read_text().replace('"name": "digits"', '"name": "my_net"'))
    write_images(images)
    script = "".join(walk)
    assert DOWNLOAD in script
    script = script.replace(DOWNLOAD, install_from_files(images, aux))
    assert script.count(SWEEP) == 2
    script = script.replace(SWEEP, SHORT_SWEEP)
    printed = clone.run(script, MODELS=str(models), IMAGENET=str(images))
    assert "cannot tell" in printed  # ck compare, with one run of each
    assert "<html" in (clone.folder / "report.html").read_text()
    assert len(list((clone.folder / "plots").glob("*.svg"))) >= 2
    points = clone.folder / ".ck/repos/local/experiment/mlperf.digits.multistream.performance"
    assert len(list(points.glob("ckp-*.0001.json"))) == 1


def write_images(folder: Path) -> None:
    import cv2
    import numpy as np

    folder.mkdir()
    for number in range(1, 501):
        image = np.full((60, 80, 3), number % 256, np.uint8)
        cv2.imwrite(str(folder / f"ILSVRC2012_val_{number:08}.JPEG"), image)
    names = sorted(path.name for path in folder.glob("*.JPEG"))
    (folder / "val.txt").write_text("".join(f"{name} 0\n" for name in names))


def install_from_files(images: Path, aux: Path) -> str:
    """The download of the 500-image subset and its labels, from archives made here."""
    import hashlib

    commands = []
    contents = {
        "dataset,imagenet,aux": ["val.txt"],
        "dataset,imagenet,val,original,min": sorted(set(os.listdir(images)) - {"val.txt"}),
    }
    for tags, names in contents.items():
        archive = images.parent / f"{tags}.tar"
        with tarfile.open(archive, "w") as tar:
            for name in names:
                tar.add(images / name, name)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        commands.append(f"ck install package --tags={tags} --env.PACKAGE_FILE={archive} "
                        f"--env.PACKAGE_HASH=sha256:{digest}")  # fmt: skip
    # The walk's own folder of images is in the way of the second: one data set at a time.
    return " && ".join(["ck rm env:* --tags=dataset,imagenet,val --force", *commands])
