"""Make one array of a data set: every image decoded, resized and cropped as a recipe says.

The output folder gets images.npy (uint8 [N, side, side, 3]), val_map.txt (`name label`, one line a
row) and manifest.json. The manifest comes last: a folder without it is not a preprocessed set.
A run that was killed is resumed where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import name_in_errors, write_file
from ck_mlperf.images.dataset import DATASET_CLASSES, MAP_FILE, format_labels
from ck_mlperf.images.decode import library_versions
from ck_mlperf.images.originals import combine_digests, find_archive
from ck_mlperf.images.partial import (
    PROGRESS_FILE,
    lock_output,
    open_partial,
    publish,
    read_progress,
    write_progress,
)
from ck_mlperf.images.preprocessed import (
    IMAGES_FILE,
    ROWS_FILE,
    PreprocessedSet,
    RowDigests,
    format_row_hashes,
    hash_rows,
    load_preprocessed,
)
from ck_mlperf.images.recipe import ASPECTS, CHANNEL_ORDERS, INTERPOLATIONS, ImageRecipe
from ck_mlperf.images.source import FORMAT, MANIFEST_FILE, Source, read_source
from ck_mlperf.images.workers import decode_rows

_SYNC_PERIOD_S = 0.25

_Made = dict[int, RowDigests]


def preprocess(
    source: Path,
    output: Path,
    recipe: ImageRecipe,
    dataset: str = "imagenet",
    labels_file: Path | None = None,
    first: int | None = None,
    workers: int | None = None,
    show_progress: bool = False,
    labelled: bool = True,
) -> PreprocessedSet:
    """Preprocess the images of `source`, or only the `first` N of them, into the folder `output`.

    labelled: False uses every image in the folder and no labels, for calibration.
    workers: processes, by default one for each core that this process may use; the result does not
    depend on it. A set that is there already and is still right is not made again.
    Raises UserError on images or labels that are missing or damaged, on a full disk, and where
    another process writes into `output`.
    """
    if source.resolve() == output.resolve():
        raise UserError(f"{output}: the output cannot be the folder of the images")
    images = read_source(source, dataset, labels_file, first, labelled)
    plan = {
        "format": FORMAT,
        **images.facts,
        "recipe": recipe.to_dict(),
        **library_versions(recipe),
    }
    manifest: dict[str, Any] = {**plan, "source_state_sha256": images.state_sha256}
    output.mkdir(parents=True, exist_ok=True)
    with lock_output(output):
        with contextlib.suppress(UserError):  # absent, unfinished or damaged
            done = load_preprocessed(output)
            if manifest.items() <= done.manifest.items():
                _write_manifest(output, source, done.manifest)
                return load_preprocessed(output)
        partial = open_partial(output, plan)
        digests = _fill_array(source, partial, images, recipe, workers, show_progress)
        manifest["images_sha256"] = hash_rows(row.pixels for row in digests)
        write_file(partial / ROWS_FILE, format_row_hashes(row.pixels for row in digests))
        contents = [row.content for row in digests]
        manifest["source_files_sha256"] = combine_digests(
            dict(zip(images.names, contents, strict=True))
        )
        write_file(partial / MAP_FILE, format_labels(images.kept))
        _write_manifest(partial, source, manifest)
        publish(partial, output)
    return load_preprocessed(output)


def _write_manifest(folder: Path, source: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the archive that the images in `source` were compared with."""
    archive = find_archive(source, manifest["source_files_sha256"])
    noted = {"source_archive_sha256": archive} if archive else {}
    write_file(folder / MANIFEST_FILE, json.dumps(manifest | noted, indent=2) + "\n")


def _fill_array(
    source: Path,
    partial: Path,
    images: Source,
    recipe: ImageRecipe,
    workers: int | None,
    show_progress: bool,
) -> list[RowDigests]:
    """Make every row that is not there yet. Returns the digests of all rows."""
    names, states, array = images.names, images.states, partial / IMAGES_FILE
    digests = read_progress(partial, states)
    todo = [row for row in range(len(names)) if row not in digests]
    with (
        name_in_errors(partial),
        (partial / PROGRESS_FILE).open("a", encoding="ascii") as progress,
        array.open("r+b") as file,
    ):
        sync_at_s = time.monotonic() + _SYNC_PERIOD_S
        steps = decode_rows(source, array, names, recipe, todo, workers)
        for made in _show(steps, len(names), len(digests)) if show_progress else steps:
            digests.update(made)
            write_progress(progress, states, made)
            if time.monotonic() > sync_at_s:
                # Now, while the workers go on: at the end it could take as long as all their work.
                os.fdatasync(file.fileno())
                sync_at_s = time.monotonic() + _SYNC_PERIOD_S
    return [digests[row] for row in range(len(names))]


def _show(steps: Iterator[_Made], total: int, done: int) -> Iterator[_Made]:
    """Pass `steps` on and show progress: a bar on a terminal, else a line every tenth."""
    from tqdm import tqdm

    on_terminal = sys.stderr.isatty()
    with tqdm(total=total, initial=done, unit="image", disable=not on_terminal) as bar:
        for made in steps:
            yield made
            before, done = done, done + len(made)
            bar.update(len(made))
            if not on_terminal and before * 10 // total != done * 10 // total:
                print(f"preprocessed {done} of {total} images", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ck_mlperf.images.preprocess",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = ImageRecipe()
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of images")
    add("--labels", type=Path, help="lines `name label`; default: val_map.txt or val.txt there")
    add("--unlabelled", action="store_true", help="the images have no labels: for calibration only")
    add("--output", type=Path, required=True, help="folder to make")
    add("--dataset", choices=sorted(DATASET_CLASSES), default="imagenet")
    add("--side", type=int, default=default.side, help="pixels, default %(default)s")
    add("--crop", type=float, default=default.crop, help="share kept, default %(default)s")
    add("--interpolation", choices=INTERPOLATIONS, default=default.interpolation)
    add("--channels", choices=CHANNEL_ORDERS, default=default.channels)
    add("--aspect", choices=ASPECTS, default=default.aspect)
    add("--first", type=int, metavar="N", help="only the first N images of the list")
    add("--workers", type=int, metavar="N", help="processes, default: usable cores")
    options = parser.parse_args()
    if options.unlabelled and options.labels:
        raise UserError("--unlabelled and --labels: want one of them")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers}: want 1 or more")
    made = preprocess(
        options.source,
        options.output,
        ImageRecipe(
            options.side, options.crop, options.interpolation, options.channels, options.aspect
        ),
        dataset=options.dataset,
        labels_file=options.labels,
        first=options.first,
        workers=options.workers,
        show_progress=True,
        labelled=not options.unlabelled,
    )
    count, height, width, _ = made.images.shape
    print(f"{options.output}: {count} images of {width} x {height}")


if __name__ == "__main__":
    run_main(main)
