"""Print the throughput of every recorded run.

    python examples/read_records.py CK_REPOSITORY [EXPERIMENT...]

CK_REPOSITORY is a folder with experiments, such as $CK_REPOS/local; experiments may be patterns.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ck_mlperf.common.errors import run_main
from ck_mlperf.results.experiments import find_files, read_records


def main() -> None:
    for file in find_files([Path(sys.argv[1])], sys.argv[2:]):
        if file.path.name.startswith("failed-"):
            continue
        for record in filter(None, read_records(file.path)):
            rate = record.throughput and record.throughput.samples_per_second
            what = f"{rate:,.0f} samples/s" if rate else record.mode
            print(f"{file.experiment}: {record.model.name}, {record.scenario}, {what}")


run_main(main)
