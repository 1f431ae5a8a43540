"""The digits as a data set in ImageNet's form."""

from __future__ import annotations

import collections
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ck_mlperf.images.dataset import read_image_list

from ...builders.digits import MAKE_DIGITS, make_digits
from ...builders.forks import run_fork
from ...builders.in_process import run_script

Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(capfd: pytest.CaptureFixture[str]) -> Make:
    """Runs make_digits.py with these arguments."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        status = run_script(MAKE_DIGITS, *arguments)
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "images"
    make_digits(folder)
    return folder


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "images"
    make_digits(folder, "train")
    return folder


def read_image(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def enlarge(scan: np.ndarray) -> np.ndarray:
    """Four times as large, linear between the centres of the pixels, rounded to nearest."""
    at = (np.arange(32) + 0.5) / 4 - 0.5
    wide = np.array([np.interp(at, range(8), row) for row in scan])
    return np.array([np.interp(at, range(8), column) for column in wide.T]).T


def check_refused(process: subprocess.CompletedProcess[str], *words: str) -> None:
    assert process.returncode == 2
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1, process.stderr
    for word in ("error: ", *words):
        assert word in process.stderr


def test_the_default_is_500_held_out_images(held_out: Path) -> None:
    listed = read_image_list(held_out, classes=10)
    assert [name for name, _ in listed] == [f"digits_test_{n:05}.png" for n in range(1, 501)]
    assert collections.Counter(label for _, label in listed) == dict.fromkeys(range(10), 50)
    names = (held_out / "labels.txt").read_text().splitlines()
    assert names[0] == "zero"
    assert names[9] == "nine"
    assert len(names) == 10
    assert len(list(held_out.iterdir())) == 502


def test_every_image_is_the_source_image_of_its_label(held_out: Path) -> None:
    source = load_digits()
    chosen = sorted(
        row for digit in range(10) for row in np.flatnonzero(source.target == digit)[-50:]
    )
    for (name, label), row in zip(read_image_list(held_out, classes=10), chosen, strict=True):
        assert label == source.target[row]
        image = read_image(held_out / name)
        assert image.shape == (40, 40, 3)
        assert image.dtype == np.uint8
        assert (image == image[..., :1]).all()
        expected = np.zeros((40, 40))
        expected[4:36, 4:36] = enlarge(source.images[row] * 15)
        np.testing.assert_allclose(image[..., 0], expected, rtol=0, atol=0.51)


def test_no_held_out_image_is_in_the_training_split(held_out: Path, training: Path) -> None:
    listed = read_image_list(training, classes=10)
    assert len(listed) == 1797 - 500
    trained_on = {read_image(training / name).tobytes() for name, _ in listed}
    held = {read_image(path).tobytes() for path in held_out.glob("*.png")}
    assert len(held) == 500
    assert trained_on.isdisjoint(held)


def test_a_second_run_gives_the_same_files(make: Make, held_out: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again").returncode == 0
    assert read_files(tmp_path / "again") == read_files(held_out)


def test_count_takes_the_first_ones(make: Make, held_out: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "few", "--count", 7).returncode == 0
    few = read_image_list(tmp_path / "few", classes=10)
    assert few == read_image_list(held_out, classes=10)[:7]
    assert all(
        (tmp_path / "few" / name).read_bytes() == (held_out / name).read_bytes() for name, _ in few
    )


@pytest.mark.parametrize("count", ["0", "-1", "501"])
def test_a_count_out_of_range_is_refused(make: Make, tmp_path: Path, count: str) -> None:
    check_refused(make(tmp_path / "images", "--count", count), f"--count {count}", "1 to 500")
    assert list(tmp_path.iterdir()) == []


def test_an_own_earlier_output_is_replaced(make: Make, held_out: Path, tmp_path: Path) -> None:
    output = tmp_path / "images"
    assert make(output, "--split", "train", "--count", 5).returncode == 0
    (output / "val_map.txt").unlink()
    assert make(output).returncode == 0
    assert read_files(output) == read_files(held_out)
    assert list(tmp_path.iterdir()) == [output]


def test_an_empty_folder_is_taken(make: Make, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert make(tmp_path / "images", "--count", 1).returncode == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "images"]
    assert len(read_image_list(tmp_path / "images", classes=10)) == 1


def test_a_folder_with_other_files_is_left_alone(make: Make, tmp_path: Path) -> None:
    output = tmp_path / "images"
    assert make(output, "--count", 1).returncode == 0
    (output / "thesis.tex").write_text("years of work")
    before = read_files(output)
    check_refused(make(output), str(output), "thesis.tex")
    assert read_files(output) == before
    assert list(tmp_path.iterdir()) == [output]


def test_a_file_in_the_way_is_left_alone(make: Make, tmp_path: Path) -> None:
    (tmp_path / "images").write_text("years of work")
    check_refused(make(tmp_path / "images"), str(tmp_path / "images"), "is a file")
    assert (tmp_path / "images").read_text() == "years of work"


def test_a_missing_parent_folder_is_named(make: Make, tmp_path: Path) -> None:
    check_refused(make(tmp_path / "absent" / "images"), str(tmp_path / "absent"), "no such folder")


def test_an_unwritable_folder_is_named(make: Make) -> None:
    # The kernel's own file system takes no folder from anybody, root included.
    check_refused(make("/sys/digits"), "/sys/digits", "cannot be written")


def test_nothing_is_left_when_the_disk_takes_no_more(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The limit on a file's size stands for the full disk: the write fails half-way.
    def run_limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
        os._exit(run_script(MAKE_DIGITS, tmp_path / "images"))

    status = run_fork(run_limited)
    process = subprocess.CompletedProcess([], status or 0, *capfd.readouterr())
    check_refused(process, str(tmp_path), "cannot be written", "File too large")
    assert list(tmp_path.iterdir()) == []


# 502 files; the 503rd is after the rename.
@pytest.mark.parametrize(("fsyncs", "is_whole"), [(1, False), (502, False), (503, True)])
def test_a_kill_leaves_all_or_nothing(
    make: Make, held_out: Path, tmp_path: Path, fsyncs: int, is_whole: bool
) -> None:
    output = tmp_path / "images"

    def run_killed() -> None:
        left, fsync = fsyncs, os.fsync

        def kill_at(fd: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(fd)

        os.fsync = kill_at
        make_digits(output)

    assert run_fork(run_killed) == -signal.SIGKILL
    assert output.exists() == is_whole
    assert make(output).returncode == 0
    assert read_files(output) == read_files(held_out)
