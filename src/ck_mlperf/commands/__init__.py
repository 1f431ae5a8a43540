# PYTHON_ARGCOMPLETE_OK
"""The command line: `ck-mlperf VERB`, which is `ck VERB loadgen` with what is installed already.

One module per verb. It has

- SUMMARY, a line for the list of verbs;
- make_parser(), all its options, declared there alone;
- main(arguments), which does it and returns the exit code;
- list_libraries(arguments), the libraries that CK resolves before main, as variations of
  package:lib-python-package; a verb without it runs in CK's own process;
- complete(arguments), where CK adds options to those that the user gave.

CK parses in its own interpreter, before anything is installed: at their top, these modules import
the standard library alone. What a verb needs beyond that, it imports in main.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from ck_mlperf.commands.parser import Parser
from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.suggest import suggest

VERBS = ("explore", "analyze", "compare", "report", "serve", "submit", "why", "doctor")
"""What `ck VERB loadgen` takes. `ck run program:NAME` is CK's own."""
OWN_VERBS = ("run", *VERBS)
"""What `ck-mlperf VERB` takes."""

COMMAND = "ck-mlperf {}"
CK_COMMAND = "ck {} loadgen"

# These print what another program may read: `| head` ends them without a traceback.
_PRINTING = ("analyze", "compare", "report")


class Verb(Protocol):
    """The module of a verb."""

    SUMMARY: str

    def make_parser(self) -> Parser: ...

    def main(self, arguments: argparse.Namespace) -> int: ...


def load_verb(name: str) -> Verb:
    """The module of one of OWN_VERBS."""
    return cast(Verb, importlib.import_module(f"ck_mlperf.commands.{name}"))


def list_verbs(command: str) -> Sequence[str]:
    """The verbs that a command takes."""
    return VERBS if command == CK_COMMAND else OWN_VERBS


def make_parser(command: str = COMMAND) -> argparse.ArgumentParser:
    """The parser of all verbs. command: how one is called, with {} in place of the verb."""
    parser = argparse.ArgumentParser(
        prog=command.partition(" ")[0],
        usage=f"{command.format('VERB')} [--OPTION=VALUE ...]",
        description="Image classification under MLPerf's LoadGen: run it, explore, analyze.",
        epilog=f"`{command.format('VERB')} --help` has the options of a verb, and examples.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(
        title="verbs",
        required=True,
        dest="verb",
        metavar="VERB",
        parser_class=argparse.ArgumentParser,
    )
    for name in list_verbs(command):
        verb = load_verb(name)
        verbs.add_parser(name, help=verb.SUMMARY)
        verbs.choices[name] = own = verb.make_parser()
        own.prog = command.format(name)
    return parser


def parse(words: Sequence[str], command: str = COMMAND) -> argparse.Namespace:
    """What `words`, the verb first, ask for: the verb and its own arguments.

    Ends the process with status 2 where they make no sense, with 0 where they ask for help.
    """
    parser = make_parser(command)
    _offer_completion(parser)
    verbs = list_verbs(command)
    if words and not words[0].startswith("-") and words[0] not in verbs:
        hint = suggest(words[0], verbs) or f"; there are {', '.join(verbs)}"
        parser.error(f"no such verb: {words[0]}{hint}")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Do what `words` ask for (None: the command line). Returns the exit code."""
    arguments = parse(sys.argv[1:] if words is None else words)
    try:
        return load_verb(arguments.verb).main(arguments)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ck_mlperf"):
            raise
        verb = arguments.verb
        by_ck = f". `{CK_COMMAND.format(verb)}` installs it by itself" if verb in VERBS else ""
        raise UserError(
            f"`{COMMAND.format(verb)}` needs the Python module {error.name}, which is not "
            "installed: `pip install -r requirements.txt -e '.[commands]'` in the checkout "
            f"installs what all verbs need{by_ck}"
        ) from error


def cli() -> NoReturn:
    """`main` as the whole program."""
    if sys.argv[1:2] and sys.argv[1] in _PRINTING:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    run_main(main)


def _offer_completion(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that completes words, where argcomplete is installed."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)
