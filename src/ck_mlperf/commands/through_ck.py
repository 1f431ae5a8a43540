"""`ck VERB loadgen`: CK's request becomes a command line, and CK the verb.

The request is parsed in CK's own interpreter, which may have the standard library alone. Then CK
resolves the libraries that the verb needs, and another process goes on with them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ck_mlperf.catalog.home import hold_home
from ck_mlperf.catalog.kernel import Catalog, Dep, dep_python
from ck_mlperf.commands import CK_COMMAND, load_verb, parse
from ck_mlperf.common.errors import UserError, run_main

# What CK itself puts into a request.
_REQUEST_KEYS = {"action", "cid", "cids", "data_uoa", "module_uoa", "out", "xcids"}
_HELP = {"-h", "-help", "--help", "--help=yes"}


def load_catalog() -> Catalog:
    """What CK has, by the kernel that runs already, or else by one of this process."""
    try:
        from ck import kernel as ck
    except ImportError as error:
        raise UserError(
            f"this asks CK, which {sys.executable} does not have ({error}): `pip install "
            "ck==2.6.4`, or use CK's own command, `ck VERB loadgen`"
        ) from error
    return Catalog(ck)


def answer_help(words: Sequence[str]) -> None:
    """End the process with the help of a verb where `ck` was called with `words` for that.

    CK's kernel loads this repository's module, and would answer --help with its source.
    """
    if words[1:2] == ["loadgen"] and not _HELP.isdisjoint(words[2:]):
        parse([words[0], "--help"], CK_COMMAND)


def run_request(request: Mapping[str, Any]) -> NoReturn:
    """Carry out what CK was asked for. Ends the process with the verb's exit code."""
    run_main(lambda: _run(read_words(request)))


def _run(words: list[str]) -> int:
    arguments = parse(words, CK_COMMAND)
    verb: Any = load_verb(arguments.verb)
    if not hasattr(verb, "list_libraries"):
        return int(verb.main(arguments))
    with stdout_on_stderr():
        python, environment = resolve_libraries(verb.list_libraries(arguments))
        if hasattr(verb, "complete"):
            words += verb.complete(arguments)
    # Go on as another program, which then has the terminal, the signals and the exit code.
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(python, [python, "-m", "ck_mlperf", *words], environment)


def read_words(request: Mapping[str, Any]) -> list[str]:
    """A request as a command line: the verb, its words, its options."""
    options = (f"--{key}={request[key]}" for key in sorted(request.keys() - _REQUEST_KEYS))
    return [request["action"], *request.get("cids", []), *options]


def resolve_libraries(names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Let CK resolve Python libraries and ours. Returns the interpreter, and its environment."""
    catalog = load_catalog()
    deps = {name: Dep({}) for name in (*names, "ck-mlperf", "python")}
    with hold_home(catalog.ck):
        catalog.resolve(deps["python"], "compiler,lang-python")
        for name in (*names, "ck-mlperf"):
            catalog.resolve_library(deps[name], name)
    return dep_python(deps)


@contextlib.contextmanager
def stdout_on_stderr() -> Iterator[None]:
    """What an installation prints is none of the verb's output, which another program may read."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
