"""`ck report loadgen`: recorded runs as one HTML page that works offline."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from ck_mlperf.commands.parser import Parser, add_experiments, list_repositories
from ck_mlperf.common.errors import UserError

SUMMARY = "write one HTML page about recorded runs, or plots as PNG and SVG"


def make_parser() -> Parser:
    parser = Parser(
        "Write the recorded runs as one HTML page that works offline.",
        [
            "--out_file=report.html",
            '"explore.*" --out_file=explore.html --force',
            "explore.digits --plots=plots --format=svg",
        ],
        usage="[EXPERIMENT ...] [--OPTION=VALUE ...]",
    )
    add_experiments(parser)
    parser.add_argument(
        "--out_file",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="where the page is written; an older page is replaced (default: %(default)s)",
    )
    parser.add_flag("--force", "replace any file")
    parser.add_argument(
        "--title", default="LoadGen runs", help="the page's heading (default: %(default)s)"
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="FOLDER",
        help="write each plot there as a file of its own, too (default: no plots)",
    )
    parser.add_argument(
        "--format", choices=("png", "svg"), default="png", help="of --plots (default: %(default)s)"
    )
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    return ["jinja2", "matplotlib", "numpy"]


def main(arguments: argparse.Namespace) -> int:
    """Write the report, and the plots where they are asked for."""
    from ck_mlperf.analyze import curves
    from ck_mlperf.analyze.page import build_page, count, refuse_to_replace
    from ck_mlperf.analyze.rows import read_experiments
    from ck_mlperf.analyze.runs import group_points
    from ck_mlperf.common.files import write_file

    out_file: Path = arguments.out_file.expanduser()
    if not arguments.force:
        refuse_to_replace(out_file)
    runs, passed_over, _ = read_experiments(list_repositories(arguments), arguments.patterns)
    if not runs:
        raise UserError(
            "no recorded runs to report on; `ck benchmark ... --record --record_repo=local` "
            "records one, `ck explore loadgen` many"
        )
    points = group_points(runs)
    notices = [f"passed over: {text}" for text in passed_over]
    page = build_page(runs, datetime.now(timezone.utc), notices=notices, title=arguments.title)
    write_file(out_file, page)
    print(f"{out_file}: {count(points, 'point')} of {count(runs, 'run')}, {len(page) / 1e6:.2f} MB")
    if arguments.plots is not None:
        from ck_mlperf.analyze.plots import write_plots

        folder = arguments.plots.expanduser()
        files = write_plots(curves.list_plots(points), folder, arguments.format)
        print(f"{folder}: {count(files, 'plot')}")
    return 0
