"""docs/report.png: the top of a page, as Chromium shows it.

    make docs/report.png

The page shows the records in docs/analysis-records.zip, which are from a real sweep; so does
docs/analysis.ipynb. With --records=FOLDER, the records of that CK repository replace them first;
then `.venv/bin/jupyter execute --inplace docs/analysis.ipynb` updates the notebook.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from datetime import timezone
from pathlib import Path

from PIL import Image

from ck_mlperf.analyze.page import build_page
from ck_mlperf.analyze.rows import read_runs
from ck_mlperf.results.experiments import find_files

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "docs" / "analysis-records.zip"
PICTURE = ROOT / "docs" / "report.png"
WIDTH_PX, HEIGHT_PX = 1280, 1375
COLOURS = 256


def pack(repository: Path) -> None:
    """Put the records of a CK repository into RECORDS, without the rest that CK keeps of a run."""
    with zipfile.ZipFile(RECORDS, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as records:
        for file in find_files([repository]):
            point = json.loads(file.path.read_bytes())
            runs = [{"run": part["run"]} for part in point["characteristics_list"]]
            for part in runs:
                part["run"]["environment"]["kernel"] = "Linux"  # its build names the machine
            name = f"experiment/{file.experiment}/{file.path.name}"
            entry = zipfile.ZipInfo(name)  # of 1980: the same bytes each time
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed = {"characteristics_list": runs}
            records.writestr(entry, json.dumps(packed, separators=(",", ":")))


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/picture.py", description=__doc__)
    parser.add_argument("--records", type=Path, metavar="FOLDER", help="a CK repository")
    repository = parser.parse_args().records
    if repository is not None:
        pack(repository)
    browser = shutil.which("chromium")
    if browser is None:
        print("error: needs chromium: sudo sh .ci/setup.sh install-browser", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(RECORDS) as records:
            records.extractall(folder / "repository")
        runs = read_runs([folder / "repository"])
        newest = max(run.start for run in runs if run.start is not None)
        page = folder / "page.html"
        page.write_bytes(build_page(runs, newest.astimezone(timezone.utc)))
        subprocess.run(
            [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={folder / 'profile'}", f"--screenshot={folder / 'shot.png'}"),
                *(f"--window-size={WIDTH_PX},{HEIGHT_PX}", page.as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        with Image.open(folder / "shot.png") as shot:
            picture = shot.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            picture.save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
