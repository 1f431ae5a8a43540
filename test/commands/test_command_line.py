"""`ck-mlperf`: what all verbs have in common."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ck_mlperf import commands
from ck_mlperf.commands import CK_COMMAND, COMMAND, OWN_VERBS, VERBS, load_verb

HEAVY = ("numpy", "matplotlib", "duckdb", "rich", "yaml", "jinja2", "argcomplete")


def read_help(capsys: pytest.CaptureFixture[str], *words: str, command: str = COMMAND) -> str:
    with pytest.raises(SystemExit, match="0"):
        commands.parse([*words, "--help"], command)
    return capsys.readouterr().out


def test_the_verbs_are_listed(capsys):
    lines = read_help(capsys).splitlines()
    for verb in OWN_VERBS:
        assert any(line.split()[:1] == [verb] for line in lines)
        assert len(load_verb(verb).SUMMARY) <= 90


@pytest.mark.parametrize(
    ("verb", "command"),
    [*((verb, COMMAND) for verb in OWN_VERBS), *((verb, CK_COMMAND) for verb in VERBS)],
)
def test_the_help_of_a_verb(capsys, verb, command):
    said = read_help(capsys, verb, command=command)
    called = command.format(verb)
    assert said.startswith(f"usage: {called}")
    usage = said.splitlines()[0]
    assert "repository" not in usage
    assert "python" not in usage
    examples = said.partition("\nexamples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 3
    for example in examples:
        assert example.strip().startswith(called)
    for action in load_verb(verb).make_parser().arguments:
        if action.option_strings and action.dest != "env.NAME":
            assert re.search(r"\((default: .+|required)\)", action.help or ""), action.dest


@pytest.mark.parametrize("verb", OWN_VERBS)
def test_the_examples_of_a_verb_are_taken(verb):
    parser = load_verb(verb).make_parser()
    for example in parser.examples:
        parser.parse_args(shlex.split(example))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explor"], "ck-mlperf: error: no such verb: explor; did you mean explore?"),
        (["nothing"], "no such verb: nothing; there are run, explore, "),
        ([], "the following arguments are required: VERB"),
        (
            ["explore", "--scenaro=Server"],
            "ck-mlperf explore: error: no such option: --scenaro; did you mean --scenario?",
        ),
    ],
)
def test_what_is_misspelt(refused, words, said):
    printed = refused(*words)
    assert said in printed
    assert printed.startswith("usage: ck-mlperf")


def test_through_ck_the_words_are_ck_s(capsys):
    for words, said in (
        (["explor"], "ck: error: no such verb: explor; did you mean explore?"),
        (["run", "job.json"], "ck: error: no such verb: run; there are explore, analyze, "),
        (["serve", "--prt=1"], "ck serve loadgen: error: no such option: --prt; did you mean"),
    ):
        with pytest.raises(SystemExit, match="2"):
            commands.parse(words, CK_COMMAND)
        printed = capsys.readouterr().err
        assert said in printed
        assert printed.startswith("usage: ck ")


def run_python(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_is_light(library_environment):
    for words in (["--help"], ["explore", "--help"], ["report", "--help"]):
        process = run_python(library_environment, "-X", "importtime", "-m", "ck_mlperf", *words)
        assert process.returncode == 0
        assert process.stdout.startswith("usage: ck-mlperf")
        imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
        assert "ck_mlperf.commands.parser" in imported
        assert imported.isdisjoint(HEAVY)


def test_a_python_with_nothing_installed_parses(library_environment):
    """As CK's own interpreter, before anything is installed: -S leaves out site-packages."""
    process = run_python(library_environment, "-S", "-m", "ck_mlperf", "explore", "--help")
    assert process.stdout.startswith("usage: ck-mlperf explore")
    process = run_python(library_environment, "-S", "-m", "ck_mlperf", "compare", "a", "b")
    assert process.returncode == 2
    assert "`ck-mlperf compare` needs the Python module numpy" in process.stderr
    assert "`ck compare loadgen` installs it by itself" in process.stderr


def test_a_module_of_ours_that_is_missing_is_a_defect(monkeypatch):
    def main(arguments: argparse.Namespace) -> int:
        raise ModuleNotFoundError("No module named 'ck_mlperf.x'", name="ck_mlperf.x")

    monkeypatch.setattr(commands, "load_verb", lambda name: SimpleNamespace(main=main))
    monkeypatch.setattr(commands, "parse", lambda words: argparse.Namespace(verb="analyze"))
    with pytest.raises(ModuleNotFoundError):
        commands.main(["analyze"])


@pytest.fixture
def complete(library_environment, tmp_path: Path) -> Callable[[str], list[str]]:
    """complete("ck-mlperf ex"): what the shell is offered, by argcomplete's protocol."""
    pytest.importorskip("argcomplete")

    def ask(line: str) -> list[str]:
        offered = tmp_path / "offered"
        environment = library_environment | {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(offered),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
        }
        process = run_python(environment, "-m", "ck_mlperf")
        assert process.returncode == 0, process.stderr
        return [word.strip() for word in offered.read_text().split("\n")]

    return ask


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ck-mlperf e", {"explore"}),
        ("ck-mlperf ", {*OWN_VERBS, "-h", "--help"}),
        ("ck-mlperf explore --sc", {"--scenario"}),
        (
            "ck-mlperf explore --scenario=Server --re",
            {"--rehearse", "--repetitions", "--resolution", "--remote_python", "--retry_failed"},
        ),
        ("ck-mlperf report --format=", {"--format=png", "--format=svg"}),
    ],
)
def test_completion(complete, line, offered):
    assert set(complete(line)) == offered


def test_the_console_script_is_declared(repository):
    project = (repository / "pyproject.toml").read_text()
    assert '\n[project.scripts]\nck-mlperf = "ck_mlperf.commands:cli"\n' in project
    assert callable(commands.cli)
