"""`ck analyze loadgen`: recorded runs as one table."""

from __future__ import annotations

import argparse
from typing import Any

from .options import add_source_options


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "analyze", prog="ck analyze loadgen", description=__doc__, allow_abbrev=False
    )
    add_source_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show, export or query the runs."""
    raise NotImplementedError
