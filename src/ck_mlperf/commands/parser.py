"""The parser that every verb has: what differs from argparse, and options that verbs share.

CK hands options over as `--KEY=VALUE` only: a bare `--flag` arrives as `--flag=yes`. All verbs
take and show them in that form, whoever starts them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ck_mlperf.analyze.conditions import FailOn, read_fail_on
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.suggest import suggest


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows options as `--query=SELECT`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        return ", ".join(action.option_strings) + describe_value(action)


def describe_value(action: argparse.Action) -> str:
    """What stands behind an option's name: `=VALUE`, or nothing where the name is enough."""
    if action.nargs in (0, "?"):
        return ""
    choices = action.choices and "|".join(action.choices)
    return f"={action.metavar or choices}"


class Parser(argparse.ArgumentParser):
    """What one verb takes. `prog` is set by who uses it: the verb may be started through CK."""

    def __init__(
        self,
        description: str,
        examples: Sequence[str],
        usage: str = "[--OPTION=VALUE ...]",
        notes: str = "",
        **settings: Any,
    ) -> None:
        """usage and each of examples: what follows the command's name. notes: the end of --help."""
        self.examples = examples
        lines = ["examples:", *(f"  PROG {example}".rstrip() for example in examples)]
        epilog = "\n".join([*lines, "", notes]).rstrip()
        super().__init__(
            usage=f"%(prog)s {usage}",
            description=description,
            epilog=epilog.replace("%", "%%").replace("  PROG", "  %(prog)s"),
            formatter_class=_Formatter,
            allow_abbrev=False,
            **settings,
        )

    @property
    def arguments(self) -> list[argparse.Action]:
        """Words and options but --help, in the order in which they were added."""
        return [action for action in self._actions if action.dest != "help"]

    def add_flag(self, name: str, help: str, required: bool = False) -> None:
        """A flag: `--name`, or `--name=yes` and `--name=no`."""
        self.add_argument(
            name,
            nargs="?",
            type=_read_flag,
            default=False,
            required=required,
            help=f"{help} ({'required' if required else 'default: no'})",
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuse what is unknown here, where the usage is the verb's."""
        words = [self._complete(word) for word in (sys.argv[1:] if args is None else args)]
        self._refuse_unknown_options(words)
        parsed, extra = super().parse_known_args(words, namespace)
        if extra:
            self.error(f"unrecognized arguments: {' '.join(extra)}")
        return parsed, []

    def _complete(self, word: str) -> str:
        """A bare `--flag` as `--flag=yes`, `--env.NAME=VALUE` as `--env.NAME=NAME=VALUE`."""
        option, has_value, value = word.partition("=")
        family, _, name = option.partition(".")
        if name and f"{family}.NAME" in self._option_string_actions:
            return f"{family}.NAME={name}={value if has_value else 'yes'}"
        action = self._option_string_actions.get(option)
        is_bare_flag = action is not None and action.nargs == "?" and not has_value
        return f"{option}=yes" if is_bare_flag else word

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Before argparse, which takes an unknown option with a space in its value for a word."""
        known = list(self._option_string_actions)
        problems = []
        for word in words:
            name = word.partition("=")[0]
            if word == "--":
                break
            if name.startswith("--") and name not in known:
                problems.append(f"no such option: {name}{suggest(name, known)}")
        if problems:
            self.error("\n  ".join(problems))


def _read_flag(text: str) -> bool:
    """What `--flag=yes` and `--flag=no` say."""
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"want yes or no, not {text!r}")
    return text == "yes"


def add_experiments(parser: Parser) -> None:
    """Which experiments: `patterns` (list of str), and `repository` (list of Path)."""
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="EXPERIMENT",
        help="name of an experiment entry, or a pattern with * and ? (default: all)",
    )
    add_repository(parser)


def add_repository(parser: Parser) -> None:
    """`repository` (list of Path): see `list_repositories`."""
    parser.add_argument(
        "--repository",
        action="extend",
        type=_split_paths,
        default=[],
        metavar="FOLDER,...",
        help="CK repositories to read as well as CK's own local one (default: none)",
    )


def add_fail_on(parser: Parser, help: str) -> None:
    """`fail_on` (FailOn): the conditions on which the exit code is 1."""
    parser.add_argument(
        "--fail_on",
        type=_read_fail_on,
        default=FailOn(),
        metavar="CONDITION,...",
        help=f"end with exit code 1 on slower[:5%%] or invalid: {help} (default: none)",
    )


def _read_fail_on(text: str) -> FailOn:
    try:
        return read_fail_on(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def list_repositories(arguments: argparse.Namespace) -> list[Path]:
    """The CK repositories that have the experiments: the local one, then those of --repository."""
    return [find_local_repository(), *arguments.repository]


def find_local_repository() -> Path:
    """The folder of CK's local repository, found as CK 2.6.4 finds it (`init` in ck/kernel.py).

    Raises UserError where there is none.
    """
    repositories = os.environ.get("CK_REPOS", "").strip() or Path.home() / "CK"
    folder = Path(os.environ.get("CK_LOCAL_REPO", "").strip() or Path(repositories, "local"))
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder. CK's local repository is expected there, by CK_LOCAL_REPO, "
            "CK_REPOS or else the home folder: set CK_REPOS as for `ck`"
        )
    return folder.resolve()


def _split_paths(text: str) -> list[Path]:
    return [Path(path).expanduser() for path in text.split(",") if path]
