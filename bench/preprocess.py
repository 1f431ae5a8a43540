"""Preprocessing: two workers against one, and one worker against a bare OpenCV loop.

`python bench/preprocess.py` measures all three in turn, several times over, compares the best time
of each, and exits with 1 where a ratio falls short. The best time is the one that other programs
disturbed least: it needs one turn in which both cores are free, and waits a while for it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.images.dataset import MAP_FILE, format_labels, read_image_list
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.images.workers import count_cores

REAL_IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-500"
IMAGES = 800  # so many that starting two processes takes under 1% of the time
SYNTHETIC_IMAGES = 300
TURNS = 6
PATIENCE_S = 75  # how long it goes on after that while a ratio falls short
WANTED_SPEEDUP = 1.9
WANTED_OVERHEAD = 1.05
RECIPE = ImageRecipe()


def make_photographs(folder: Path, count: int) -> None:
    """Write JPEGs of 500 x 375 with the smooth shapes and the noise of a photograph."""
    random = np.random.default_rng(0)
    for number in range(count):
        shapes = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photograph = cv2.resize(shapes, (500, 375), interpolation=cv2.INTER_CUBIC)
        noise = random.normal(0, 12, photograph.shape)
        photograph = np.clip(photograph + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04}.jpeg"), photograph, [cv2.IMWRITE_JPEG_QUALITY, 90])


def collect_images(folder: Path) -> list[Path]:
    """Fill `folder` with IMAGES images and their labels; real ones where they are."""
    if REAL_IMAGES.is_dir():
        sources = [REAL_IMAGES / name for name, _ in read_image_list(REAL_IMAGES)]
    else:
        (folder / "made").mkdir()
        make_photographs(folder / "made", SYNTHETIC_IMAGES)
        sources = sorted((folder / "made").iterdir())
    images = [folder / f"{number:04}.jpeg" for number in range(IMAGES)]
    for number, image in enumerate(images):
        image.symlink_to(sources[number % len(sources)])
    (folder / MAP_FILE).write_text(format_labels((image.name, 0) for image in images))
    return images


def run_bare_loop(images: list[Path], out: np.ndarray) -> None:
    """What anybody would write: no checks, no file, no hash."""
    for row, path in enumerate(images):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        scale = RECIPE.resized_side / min(height, width)
        size = (int(width * scale), int(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        left, top = (size[0] - RECIPE.side) // 2, (size[1] - RECIPE.side) // 2
        out[row] = image[top : top + RECIPE.side, left : left + RECIPE.side]


def measure_s(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def judge(bare_s: list[float], one_s: list[float], two_s: list[float]) -> tuple[bool, bool]:
    """Whether two workers are fast enough against one, and one against the bare loop."""
    return (
        min(one_s) / min(two_s) >= WANTED_SPEEDUP,
        min(one_s) / min(bare_s) <= WANTED_OVERHEAD,
    )


def main() -> int:
    if count_cores() < 2:
        raise UserError("this needs two cores that the process may use")
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        source.mkdir()
        images = collect_images(source)
        out = np.zeros((len(images), RECIPE.side, RECIPE.side, 3), np.uint8)
        run_bare_loop(images, out)  # brings the files into memory

        def run_workers(workers: int) -> float:
            with tempfile.TemporaryDirectory(dir=name) as output:
                return measure_s(lambda: preprocess(source, Path(output), RECIPE, workers=workers))

        bare_s, one_s, two_s = [], [], []
        os.sync()  # earlier writes are not ours to wait for
        deadline_s = time.perf_counter() + PATIENCE_S
        while len(bare_s) < TURNS or (
            not all(judge(bare_s, one_s, two_s)) and time.perf_counter() < deadline_s
        ):
            bare_s.append(measure_s(lambda: run_bare_loop(images, out)))
            one_s.append(run_workers(1))
            two_s.append(run_workers(2))
    speedup, overhead = min(one_s) / min(two_s), min(one_s) / min(bare_s)
    passed = judge(bare_s, one_s, two_s)
    kind = "of ImageNet" if REAL_IMAGES.is_dir() else "synthetic"
    print(f"{IMAGES} images ({kind}), best of {len(bare_s)} turns")
    for label, times_s in (("bare loop", bare_s), ("1 worker", one_s), ("2 workers", two_s)):
        print(f"  {label:<22} {min(times_s) / IMAGES * 1e3:7.3f} ms/image")
    verdicts = ["PASS" if good else "FAIL" for good in passed]
    print(f"  1 worker / 2 workers   {speedup:7.3f} (at least {WANTED_SPEEDUP})  {verdicts[0]}")
    print(f"  1 worker / bare loop   {overhead:7.3f} (at most {WANTED_OVERHEAD})  {verdicts[1]}")
    if not all(passed):
        print(f"  load average {os.getloadavg()[0]:.1f}: other programs count against the ratios")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    run_main(main)
