"""What `ck report loadgen` takes for a page of many points.

    make bench-report

The runs are made up (synthetic_runs), three to a point; reading them is bench/analyze.py's matter.
The time and the memory are those of a process that does nothing else.
Required: 1,000 points in at most 10 s, 500 MB and a page of 6 MB.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from synthetic_runs import make_runs

MOST_S = 10.0
MOST_MB = 500.0
MOST_PAGE_MB = 6.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-report", description=__doc__)
    parser.add_argument("--points", type=int, default=1000, help="about so many (default: 1000)")
    parser.add_argument("--out_file", type=Path, help="keep the page there")
    arguments = parser.parse_args()
    runs = make_runs(arguments.points)

    started = time.perf_counter()
    from ck_mlperf.analyze.page import build_page
    from ck_mlperf.analyze.runs import group_points

    page = build_page(runs, datetime.now(timezone.utc))
    took_s = time.perf_counter() - started
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    if arguments.out_file:
        arguments.out_file.write_bytes(page)
    is_met = took_s <= MOST_S and rss_mb <= MOST_MB and len(page) <= MOST_PAGE_MB * 1e6
    print(
        f"{'PASS' if is_met else 'FAIL'}  a page of {len(group_points(runs)):,} points, "
        f"{len(runs):,} runs: {took_s:.1f} s (at most {MOST_S:g}), {rss_mb:.0f} MB of memory (at "
        f"most {MOST_MB:g}), {len(page) / 1e6:.1f} MB of HTML (at most {MOST_PAGE_MB:g})"
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
