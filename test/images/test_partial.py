"""Runs that are stopped, and the next run that resumes; disks that are full."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.locks import hold_lock
from ck_mlperf.images import partial as module
from ck_mlperf.images import preprocess as preprocess_module
from ck_mlperf.images import workers
from ck_mlperf.images.dataset import read_image_list
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.images.recipe import ImageRecipe

from ..builders.forks import run_fork, start_fork
from .conftest import RECIPE, SET_FILES, change, decode_all, list_visible


def kill(process: BaseProcess) -> None:
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def progress_lines(out: Path) -> int:
    return sum(path.read_text().count("\n") for path in out.glob(".partial-*/progress"))


def hang_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let workers that are started from now on decode this image forever."""
    decode = workers.decode_image

    def hang(path: Path, *arguments: Any) -> str:
        if path.name == name:
            signal.pause()
        return decode(path, *arguments)

    monkeypatch.setattr(workers, "decode_image", hang)


def kill_in_the_midst(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Kill a run of `count` workers that has done some rows and can do no more."""
    with monkeypatch.context() as patch:
        hang_at(patch, read_image_list(images)[30][0])
        process = start_fork(preprocess, images, out, RECIPE, workers=count)
        while not progress_lines(out):
            assert process.is_alive()
            time.sleep(0.001)
        kill(process)


def test_a_killed_run_goes_on_where_it_stopped(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    kill_in_the_midst(images, out, monkeypatch, 1)
    done = progress_lines(out)
    assert 0 < done < 40
    with pytest.raises(UserError, match="no finished"):
        load_preprocessed(out)

    made_again = tmp_path / "made again"
    decode = workers.decode_image

    def record(path: Path, *arguments: Any) -> str:
        with made_again.open("a") as file:
            file.write(f"{path.name}\n")
        return decode(path, *arguments)

    monkeypatch.setattr(workers, "decode_image", record)
    made = preprocess(images, out, RECIPE)
    names = [name for name, _ in read_image_list(images)]
    assert sorted(made_again.read_text().split()) == sorted(names[done:])
    assert np.array_equal(made.images, decode_all(images))
    assert list_visible(out) == SET_FILES | {"rows.sha256"}


def test_no_worker_outlives_a_killed_run(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    reads, writes = os.pipe()
    kill_in_the_midst(images, out, monkeypatch, 2)
    os.close(writes)
    assert os.read(reads, 1) == b""  # returns when the last worker has closed its copy
    os.close(reads)
    # A process that ends closes its files one after the other: the lock may come a moment later.
    with hold_lock(out / ".lock", timeout_s=60):
        pass


def test_a_kill_at_any_time_leaves_nothing_or_all(images, tmp_path):
    """At ten moments, spread over the whole run, the end with its renames among them."""
    for path in images.glob("*.png"):  # larger, so that a run takes long enough
        assert cv2.imwrite(str(path), np.tile(cv2.imread(str(path)), (4, 4, 1)))
    recipe = ImageRecipe()
    start_s = time.monotonic()
    assert run_fork(preprocess, images, tmp_path / "whole", recipe) == 0
    whole_s = time.monotonic() - start_s
    expected = load_preprocessed(tmp_path / "whole").images
    for tenth in range(1, 11):
        out = tmp_path / f"killed-{tenth}"
        process = start_fork(preprocess, images, out, recipe)
        time.sleep(whole_s * tenth / 10)
        process.kill()
        process.join()
        try:
            found = load_preprocessed(out, verify=True)
        except UserError:
            found = preprocess(images, out, recipe)
        assert np.array_equal(found.images, expected), tenth


@pytest.mark.parametrize("step", ["unlink", "replace", "rmtree"])
def test_a_stop_while_the_set_is_published(images, tmp_path, monkeypatch, step):
    """An older set is there: at no step may its manifest stand beside the new array."""
    out = tmp_path / "out"
    preprocess(images, out, RECIPE)
    change(images / "05.png")
    expected = decode_all(images)

    class StoppedError(Exception):
        pass

    for after in range(4):
        count = 0

        def stop_at(real, after=after):
            def call(*arguments, **options):
                nonlocal count
                names = [str(argument) for argument in arguments]
                if any(name.endswith(tuple(SET_FILES)) or ".partial-" in name for name in names):
                    if count == after:
                        raise StoppedError
                    count += 1
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            owner = shutil if step == "rmtree" else Path
            patch.setattr(owner, step, stop_at(getattr(owner, step)))
            with contextlib.suppress(StoppedError):
                preprocess(images, out, RECIPE)
        try:
            found = load_preprocessed(out, verify=True).images
        except UserError:
            continue
        old = np.array_equal(found[:34], expected[:34]) and not np.array_equal(found, expected)
        assert old or np.array_equal(found, expected)
    assert np.array_equal(preprocess(images, out, RECIPE).images, expected)


def make_partial(images: Path, out: Path, monkeypatch) -> Path:
    """What a run leaves that stops before it publishes: all rows done."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preprocess_module, "publish", stop)
        with pytest.raises(KeyboardInterrupt):
            preprocess(images, out, RECIPE)
    (partial,) = out.glob(".partial-*")
    return partial


def test_rows_that_were_lost_or_changed_are_made_again(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    partial = make_partial(images, out, monkeypatch)
    with (partial / "images.npy").open("r+b") as file:  # as a power cut may leave it
        file.seek(128 + 3 * 32 * 32 * 3)
        file.write(bytes(5000))
    change(images / "20.png")
    with (partial / "progress").open("a") as file:  # and a last line cut off
        file.write("39 1234")
    assert np.array_equal(preprocess(images, out, RECIPE).images, decode_all(images))


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_a_partial_array_that_is_damaged_is_made_anew(images, tmp_path, monkeypatch, content):
    out = tmp_path / "out"
    array = make_partial(images, out, monkeypatch) / "images.npy"
    if content is None:
        os.truncate(array, array.stat().st_size // 2)
    else:
        array.write_bytes(content)
    assert np.array_equal(preprocess(images, out, RECIPE).images, decode_all(images))


def test_a_partial_set_of_another_recipe_is_removed(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    old = make_partial(images, out, monkeypatch)
    preprocess(images, out, ImageRecipe(side=16))
    assert not old.exists()


def test_two_runs_into_one_folder(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.1)
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            preprocess(images, out, RECIPE)
    assert len(preprocess(images, out, RECIPE).images) == 40


def test_a_disk_known_to_be_too_small(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1 << 20))
    with pytest.raises(UserError, match=r"40 images: they take \d+ MiB, 1 MiB are free"):
        preprocess(images, out, RECIPE)
    assert not list_visible(out)
    assert not list(out.glob(".partial-*"))


def test_a_disk_that_turns_out_full(images, tmp_path, library_environment):
    """The kernel refuses a file of that size: a real error from a real system call."""
    out = tmp_path / "out"
    process = subprocess.run(
        [sys.executable, "-m", "ck_mlperf.images.preprocess", "--source", images, "--output", out],
        env=library_environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "no room for" in process.stderr
    assert "Traceback" not in process.stderr
    assert not list_visible(out)
    assert not list(out.glob(".partial-*"))


def test_an_array_that_the_workers_cannot_open(images, tmp_path):
    """The error is said as it is, not as that of a process that was killed."""
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        list(workers.decode_rows(images, tmp_path / "absent.npy", ["00.png"], RECIPE, [0], 1))


def test_a_disk_that_is_full(images, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT RUN: needs the right to mount a small disk")
    try:
        with pytest.raises(UserError, match=r"are free\. Make room"):
            preprocess(images, disk / "out", ImageRecipe())
        assert not list_visible(disk / "out")
        # The same without the look ahead: the allocation itself fails.
        monkeypatch.setattr(module, "SPARE_BYTES", -(1 << 30))
        with pytest.raises(UserError, match=r"no room for .*No space left"):
            preprocess(images, disk / "out", ImageRecipe())
        assert not list((disk / "out").glob(".partial-*"))
    finally:
        subprocess.run(["umount", disk], check=True)
