"""`ck serve loadgen`: the page, kept up to date while a sweep adds to the experiments."""

from __future__ import annotations

import argparse

from ck_mlperf.commands.parser import Parser, add_experiments, list_repositories

SUMMARY = "show the page of `report`, live, in a browser on this machine"


def make_parser() -> Parser:
    parser = Parser(
        "Serve the page of the recorded runs to this machine, always up to date, until Ctrl-C.",
        ["", "explore.digits", '"explore.*" --port=0'],
        usage="[EXPERIMENT ...] [--OPTION=VALUE ...]",
    )
    add_experiments(parser)
    parser.add_argument(
        "--port",
        type=_read_port,
        metavar="PORT",
        default=8265,
        help="of this machine, which alone can reach it; 0: any that is free "
        "(default: %(default)s)",
    )
    return parser


def list_libraries(arguments: argparse.Namespace) -> list[str]:
    return ["jinja2", "matplotlib", "msgspec", "numpy"]


def main(arguments: argparse.Namespace) -> int:
    """Serve the page on this machine alone, until Ctrl-C."""
    from ck_mlperf.analyze.serve import LivePage, serve

    serve(LivePage(list_repositories(arguments), arguments.patterns), arguments.port)
    return 0


def _read_port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"want a port from 0 to 65535, not {text!r}")
    return int(text)
