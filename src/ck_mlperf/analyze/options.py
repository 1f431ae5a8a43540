"""What the options of several commands have in common.

CK hands over `--key=value` only: a bare `--flag` comes as `--flag=yes`.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Which experiments: `patterns` (list of str), `repository` (list of Path)."""
    parser.add_argument(
        "patterns",
        nargs="*",
        type=read_pattern,
        metavar="EXPERIMENT",
        help="name of an experiment entry, or a pattern with * and ? (default: all)",
    )
    add_repository_option(parser)


def add_repository_option(parser: argparse.ArgumentParser) -> None:
    """`repository`: list of Path, of the CK repositories that have the experiments."""
    parser.add_argument(
        "--repository",
        action="extend",
        type=_split_paths,
        required=True,
        metavar="FOLDER,...",
        help="CK repositories that have experiments, beside CK's own local one",
    )


def add_flag(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    """A flag: `--name`, or as CK gives it, `--name=yes`."""
    parser.add_argument(name, nargs="?", const=True, default=False, type=_read_flag, help=help)


def read_pattern(text: str) -> str:
    """The name or pattern of experiments that a word is."""
    if text.startswith("-"):  # argparse takes an option that has a space for a word
        raise argparse.ArgumentTypeError(f"there is no such option: {text}")
    return text


def _read_flag(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"want yes or no, not {text!r}")
    return text == "yes"


def _split_paths(text: str) -> list[Path]:
    return [Path(path).expanduser() for path in text.split(",") if path]
