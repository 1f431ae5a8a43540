"""`python -m ck_mlperf.analyze ACTION ...`, which `ck ACTION loadgen ...` runs."""

from __future__ import annotations

import argparse
import signal
import sys

from ck_mlperf.analyze import analyze, compare, report, serve
from ck_mlperf.common.errors import run_main

# Each adds its parser to the commands, and sets `run`: what is called with the arguments. Of the
# libraries, a command imports in `run` what it alone needs.
COMMANDS = (
    analyze.add_command,
    compare.add_command,
    report.add_command,
    serve.add_command,
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ck", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, dest="action", metavar="ACTION")
    for add_command in COMMANDS:
        add_command(commands)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:  # argparse itself would show the usage of no command
        commands.choices[parsed.action].error(f"unrecognized arguments: {' '.join(unknown)}")
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    if sys.argv[1:2] != ["serve"]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    run_main(main)
