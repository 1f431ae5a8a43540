from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images import preprocess as module
from ck_mlperf.images.dataset import read_image_list
from ck_mlperf.images.decode import decode_image
from ck_mlperf.images.preprocess import load_preprocessed, preprocess
from ck_mlperf.images.recipe import ImageRecipe

RECIPE = ImageRecipe(side=32)
SET_FILES = {"images.npy", "val_map.txt", "manifest.json"}


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def change(image: Path) -> None:
    pixels = cv2.imread(str(image))
    assert cv2.imwrite(str(image), 255 - pixels)


def expect(source: Path, recipe: ImageRecipe = RECIPE) -> np.ndarray:
    names = [name for name, _ in read_image_list(source)]
    array = np.empty((len(names), recipe.side, recipe.side, 3), np.uint8)
    for name, row in zip(names, array, strict=True):
        decode_image(source / name, recipe, row)
    return array


def test_rows_labels_and_names_are_in_the_order_of_the_list(images, tmp_path):
    made = preprocess(images, tmp_path / "out", RECIPE)
    assert np.array_equal(made.images, expect(images))
    assert made.names[0] == "39.png"
    assert made.labels.tolist() == [label for _, label in read_image_list(images)]
    assert made.labels.dtype == np.int32
    assert isinstance(made.images, np.memmap)
    assert not made.images.flags.writeable
    assert made.recipe == RECIPE
    assert visible(tmp_path / "out") == SET_FILES
    assert not list((tmp_path / "out").glob(".partial-*"))
    assert np.array_equal(np.load(tmp_path / "out" / "images.npy", allow_pickle=False), made.images)
    assert (tmp_path / "out" / "val_map.txt").read_text() == (images / "val_map.txt").read_text()


@pytest.mark.parametrize("workers", [2, 3, 100])
def test_the_bytes_do_not_depend_on_the_workers(images, tmp_path, workers):
    preprocess(images, tmp_path / "one", RECIPE, workers=1)
    preprocess(images, tmp_path / "more", RECIPE, workers=workers)
    for name in SET_FILES:
        one, more = ((tmp_path / out / name).read_bytes() for out in ("one", "more"))
        assert one == more, name


def test_the_manifest_says_what_was_made(images, tmp_path):
    manifest = preprocess(images, tmp_path / "out", RECIPE, first=10).manifest
    assert manifest["count"] == 10
    assert manifest["source_count"] == 40
    assert manifest["recipe"] == RECIPE.to_dict()
    assert manifest["opencv"] == cv2.__version__
    assert "pillow" not in manifest
    whole = preprocess(images, tmp_path / "whole", RECIPE).manifest
    assert whole["source_list_sha256"] == manifest["source_list_sha256"]
    assert whole["images_sha256"] != manifest["images_sha256"]


def test_the_first_images(images, tmp_path):
    made = preprocess(images, tmp_path / "out", RECIPE, first=3)
    assert made.names == ["39.png", "38.png", "37.png"]
    for first in (0, -1, 41):
        with pytest.raises(UserError, match="has 40"):
            preprocess(images, tmp_path / "out", RECIPE, first=first)


def test_what_is_there_is_not_made_again(images, tmp_path):
    out = tmp_path / "out"
    preprocess(images, out, RECIPE)
    before = (out / "images.npy").stat().st_mtime_ns
    preprocess(images, out, RECIPE)
    assert (out / "images.npy").stat().st_mtime_ns == before


def test_another_recipe_and_another_source_make_it_anew(images, tmp_path):
    out = tmp_path / "out"
    preprocess(images, out, RECIPE)
    other = ImageRecipe(side=32, channels="bgr")
    assert np.array_equal(preprocess(images, out, other).images, expect(images, other))
    change(images / "05.png")
    assert np.array_equal(preprocess(images, out, other).images, expect(images, other))


def test_a_damaged_image_is_named_and_nothing_looks_whole(images, tmp_path, run_module, capfd):
    (images / "07.png").write_bytes(b"<html>not found</html>")
    out = tmp_path / "out"
    done = run_module("images.preprocess", "--source", images, "--output", out, "--side", 32)
    assert done.returncode == 2
    assert "07.png: no image but a web page" in done.stderr
    assert "Traceback" not in done.stderr
    assert not visible(out)
    with pytest.raises(UserError, match="no finished"):
        load_preprocessed(out)
    shutil.copy(images / "08.png", images / "07.png")
    assert np.array_equal(preprocess(images, out, RECIPE).images, expect(images))


def test_a_missing_image_is_named(images, tmp_path):
    (images / "07.png").unlink()
    with pytest.raises(UserError, match=r"07\.png"):
        preprocess(images, tmp_path / "out", RECIPE)


def test_the_output_cannot_be_the_source(images):
    with pytest.raises(UserError, match="cannot be the folder"):
        preprocess(images, images, RECIPE)
    assert "manifest.json" not in visible(images)


def start(images: Path, out: Path, environment: dict[str, str], *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ck_mlperf.images.preprocess", "--source", images]
    return subprocess.Popen(
        [*command, "--output", out, *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def enlarge(images: Path) -> None:
    """Make the images so large that a run can be killed in its midst."""
    for path in images.glob("*.png"):
        pixels = cv2.imread(str(path))
        assert cv2.imwrite(str(path), np.tile(pixels, (16, 16, 1)))


def progress_lines(out: Path) -> int:
    return sum(path.read_text().count("\n") for path in out.glob(".partial-*/progress"))


def test_a_killed_run_goes_on_where_it_stopped(images, tmp_path, library_environment, monkeypatch):
    enlarge(images)
    out = tmp_path / "out"
    process = start(images, out, library_environment, "--workers", "1")
    while process.poll() is None and not (out.exists() and progress_lines(out)):
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 0 < progress_lines(out) < 40
    with pytest.raises(UserError, match="no finished"):
        load_preprocessed(out)

    made_again: list[int] = []
    run_workers = module._run_workers

    def watch(*arguments):
        for rows in run_workers(*arguments):
            made_again.extend(rows)
            yield rows

    monkeypatch.setattr(module, "_run_workers", watch)
    made = preprocess(images, out, ImageRecipe())
    assert 0 < len(made_again) < 40
    assert np.array_equal(made.images, expect(images, ImageRecipe()))
    assert visible(out) == SET_FILES


def test_a_kill_at_any_time_leaves_nothing_or_all(images, tmp_path, library_environment):
    """At ten moments, spread over the whole run, the end with its renames among them."""
    enlarge(images)
    start_s = time.monotonic()
    process = start(images, tmp_path / "whole", library_environment)
    process.communicate()
    assert process.returncode == 0
    whole_s = time.monotonic() - start_s
    expected = load_preprocessed(tmp_path / "whole").images
    for tenth in range(1, 11):
        out = tmp_path / f"killed-{tenth}"
        process = start(images, out, library_environment)
        time.sleep(whole_s * tenth / 10)
        process.kill()
        process.communicate()
        try:
            found = load_preprocessed(out, verify=True)
        except UserError:
            found = preprocess(images, out, ImageRecipe())
        assert np.array_equal(found.images, expected), tenth


@pytest.mark.parametrize("step", ["unlink", "replace", "rmtree"])
def test_a_stop_while_the_set_is_published(images, tmp_path, monkeypatch, step):
    """An older set is there: at no step may its manifest stand beside the new array."""
    out = tmp_path / "out"
    preprocess(images, out, RECIPE)
    change(images / "05.png")
    expected = expect(images)

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
        patch.setattr(module, "_publish", stop)
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
    assert np.array_equal(preprocess(images, out, RECIPE).images, expect(images))


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_a_partial_array_that_is_damaged_is_made_anew(images, tmp_path, monkeypatch, content):
    out = tmp_path / "out"
    array = make_partial(images, out, monkeypatch) / "images.npy"
    if content is None:
        os.truncate(array, array.stat().st_size // 2)
    else:
        array.write_bytes(content)
    assert np.array_equal(preprocess(images, out, RECIPE).images, expect(images))


def test_a_partial_set_of_another_recipe_is_removed(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    old = make_partial(images, out, monkeypatch)
    preprocess(images, out, ImageRecipe(side=16))
    assert not old.exists()


def test_no_worker_outlives_a_killed_run(images, tmp_path, library_environment):
    enlarge(images)
    out = tmp_path / "out"
    process = start(images, out, library_environment, "--workers", "2")
    while process.poll() is None and not (out.exists() and progress_lines(out)):
        time.sleep(0.001)
    process.kill()
    process.communicate()  # returns when the last worker has closed stderr
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_worker_that_is_killed_is_an_error_and_no_hang(images, tmp_path, monkeypatch):
    parent = os.getpid()

    def die(*_):
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, "decode_image", die)
    with pytest.raises(UserError, match="was killed"):
        preprocess(images, tmp_path / "out", RECIPE)
    monkeypatch.undo()
    assert np.array_equal(preprocess(images, tmp_path / "out", RECIPE).images, expect(images))


def test_two_runs_into_one_folder(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(module, "_LOCK_WAIT_S", 0.1)
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
    assert not visible(out)
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
    assert not visible(out)
    assert not list(out.glob(".partial-*"))


def test_a_disk_that_is_full(images, tmp_path, run_module, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT RUN: needs the right to mount a small disk")
    try:
        done = run_module("images.preprocess", "--source", images, "--output", disk / "out")
        assert done.returncode == 2
        assert "are free. Make room" in done.stderr
        assert not visible(disk / "out")
        # The same without the look ahead: the allocation itself fails.
        monkeypatch.setattr(module, "_SPARE_BYTES", -(1 << 30))
        with pytest.raises(UserError, match=r"no room for .*No space left"):
            preprocess(images, disk / "out", ImageRecipe())
        assert not list((disk / "out").glob(".partial-*"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_unwritable_folder(images, run_module):
    done = run_module("images.preprocess", "--source", images, "--output", "/proc/none/out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /proc/")
    assert done.stderr.count("\n") == 1


def test_progress_is_a_line_every_tenth_without_a_terminal(images, tmp_path, run_module):
    out = tmp_path / "out"
    done = run_module("images.preprocess", "--source", images, "--output", out, "--side", 32)
    assert (done.returncode, done.stdout) == (0, f"{out}: 40 images of 32 x 32\n")
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 10
    assert lines[-1] == "preprocessed 40 of 40 images"


def test_a_bad_option_is_an_error(images, tmp_path, run_module):
    for option, value in (("--workers", 0), ("--crop", 2), ("--first", 0)):
        done = run_module(
            "images.preprocess", "--source", images, "--output", tmp_path / "out", option, value
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")


# ---- load_preprocessed


@pytest.fixture
def whole(images, tmp_path) -> Path:
    preprocess(images, tmp_path / "set", RECIPE)
    return tmp_path / "set"


@pytest.mark.parametrize("name", sorted(SET_FILES))
def test_a_set_without_one_of_its_files(whole, name):
    (whole / name).unlink()
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        load_preprocessed(whole)


@pytest.mark.parametrize("by", [-1, 1])
def test_an_array_too_short_or_too_long(whole, by):
    path = whole / "images.npy"
    os.truncate(path, path.stat().st_size + by)
    with pytest.raises(UserError, match=r"images\.npy"):
        load_preprocessed(whole)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((40, 32, 32, 3), np.int8),
        np.zeros((40, 32, 32), np.uint8),
        np.zeros((39, 32, 32, 3), np.uint8),
        np.asfortranarray(np.zeros((40, 32, 32, 3), np.uint8)),
        np.array([{}], dtype=object),
    ],
)
def test_an_array_of_another_kind(whole, array):
    np.save(whole / "images.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"images\.npy"):
        load_preprocessed(whole)


def test_an_archive_in_place_of_the_array(whole):
    with (whole / "images.npy").open("wb") as file:
        np.savez(file, images=np.zeros((40, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"images\.npy"):
        load_preprocessed(whole)


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[::-1],
        lambda lines: [*lines[:-1], "00.png 999"],
        lambda lines: [*lines, "more.png 1"],
    ],
)
def test_labels_that_changed(whole, edit):
    path = whole / "val_map.txt"
    path.write_text("".join(f"{line}\n" for line in edit(path.read_text().splitlines())))
    with pytest.raises(UserError, match="not the labels"):
        load_preprocessed(whole)


@pytest.mark.parametrize(
    "edit",
    [
        {"format": 2},
        {"dataset": "cifar"},
        {"count": 39},
        {"count": "40"},
        {"recipe": None},
        {"recipe": {"side": 32}},
        {"images_sha256": None},
    ],
)
def test_a_manifest_that_does_not_fit(whole, edit):
    path = whole / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(UserError):
        load_preprocessed(whole)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": 1'])
def test_a_manifest_that_is_none(whole, text):
    (whole / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        load_preprocessed(whole)


def test_verify_finds_a_changed_pixel(whole):
    with (whole / "images.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    assert len(load_preprocessed(whole).images) == 40
    with pytest.raises(UserError, match="pixels have changed"):
        load_preprocessed(whole, verify=True)


def test_digits_have_ten_labels(images, tmp_path):
    with pytest.raises(UserError, match="want 0 to 9"):
        preprocess(images, tmp_path / "out", RECIPE, dataset="digits")
