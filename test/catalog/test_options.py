"""What CK would ignore is refused; what CK itself takes passes."""

from __future__ import annotations

import json
import re
import shlex
from importlib.metadata import distribution
from pathlib import Path

import pytest

from ck_mlperf.catalog.kernel import read_command_line
from ck_mlperf.catalog.options import (
    RUN,
    Known,
    check_install,
    find_build_variables,
    find_unknown_options,
    read_build_variables,
)
from ck_mlperf.catalog.program import select_passed
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.suggest import count_edits

from ..fakes.kernel import make_catalog

PACKAGE = "model-tensorrt-convert-from-onnx"
DEPS = ["weights", "images", "dataset", "python", "ck-mlperf"]


@pytest.fixture(scope="module")
def catalog():
    """CK with the text of the installed one, and a package that builds plans."""
    folder = Path(str(distribution("ck").locate_file("ck")))
    catalog, kernel = make_catalog()
    kernel.__file__ = str(folder / "kernel.py")
    kernel.module_folder = folder / "repo" / "module"
    path = Path(__file__).resolve().parents[2] / "package" / PACKAGE / ".cm" / "meta.json"
    kernel.packages[PACKAGE] = json.loads(path.read_text())
    return catalog


@pytest.fixture(scope="module")
def known(catalog):
    """What the installed CK reads."""
    return Known(catalog.read_sources(RUN))


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("dep_add_tags.weight", "no such dependency; did you mean weights?"),
        ("deps.image", "no such dependency; did you mean images?"),
        ("deps.zzz", "no such dependency; did you mean "),
        ("dep_add_tag.weights", "no such option; did you mean --dep_add_tags.weights?"),
        ("add_tags.weights", "no such option; did you mean --dep_add_tags.weights?"),
        ("dep.images", "no such option; did you mean --deps.images?"),
        ("evn.CK_BATCH_SIZE", "no such option; did you mean --env.CK_BATCH_SIZE?"),
        ("recrod", "no such option; did you mean --record?"),
        ("repetition", "no such option; did you mean --repetitions?"),
        ("tag", "no such option; did you mean --tags?"),
        ("quite", "no such option; did you mean --quiet?"),
    ],
)
def test_unknown(known, option, wanted):
    problems = find_unknown_options(["quiet", option], DEPS, known)
    assert len(problems) == 1
    assert problems[0].startswith(f"--{option}: {wanted}")


@pytest.mark.parametrize(
    "option",
    ["env.CUDA_VISIBLE_DEVICES", "deps.dataset", "dep_add_tags.ck-mlperf", "params.x", "cmd_key",
     "record_uoa", "cpu_freq", "subtags", "out", "quiet", "local", "my_own_note"],
)  # fmt: skip
def test_what_ck_takes_passes_and_what_is_near_nothing(known, option):
    assert find_unknown_options([option], DEPS, known) == []


def test_every_option_of_the_documents_passes(known, repository):
    texts = [path.read_text() for path in (repository / "README.md", *repository.glob("docs/*.md"))]
    commands = re.findall(r"^ck (?:run|benchmark) program:(?:.*\\\n)*.*", "\n".join(texts), re.M)
    assert len(commands) > 4
    words = [shlex.split(command.replace("\\\n", " "), comments=True) for command in commands]
    options = {option for command in words for option in read_command_line(command)}
    assert "record_uoa" in options
    assert find_unknown_options(options, DEPS, known) == []


def test_the_command_line_is_read_as_ck_reads_it():
    words = "ck run program:x --a.b=1 -c d=2 @e=3.json --f -- --g=4"
    assert read_command_line(words.split()) == {"a.b": "1", "c": "", "d": "2", "f": ""}
    assert read_command_line(["pytest", "run", "--a=1"]) == {}


def test_variables_that_ck_sets_itself(known):
    for name in ("CK_CPU_FREQUENCY", "CK_GPU_FREQUENCY", "CK_COMPUTE_DEVICE_ID"):
        assert known.has_variable(name)
    assert not known.has_variable("CK_BATCHSIZE")


def test_variables_of_a_build(catalog):
    environment = {"TENSORRT_WORKSPACE_MIB": "9", "TENSORRT_WORKSPACE": "9", "OMP_NUM_THREADS": "2"}
    assert find_build_variables(environment, read_build_variables(catalog)) == [
        "TENSORRT_WORKSPACE: no such variable; did you mean TENSORRT_WORKSPACE_MIB?",
        "TENSORRT_WORKSPACE_MIB: a run does not read it. Build the plan with it: ck install "
        f"package:{PACKAGE} --tags=... --env.TENSORRT_WORKSPACE_MIB=9",
    ]


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("--env.TENSORRT_BULDER_LEVEL=1", "did you mean TENSORRT_BUILDER_LEVEL?"),
        ("--env.CK_BATCH_SIZE=1", "CK_BATCH_SIZE: no package reads such a variable"),
        ("--deps.onx=0123456789abcdef", "no such dependency; did you mean onnx?"),
        ("--dep_add_tag.onnx=resnet", "did you mean --dep_add_tags.onnx?"),
        ("--extra_tag=mine", "did you mean --extra_tags?"),
    ],
)
def test_an_installation_refuses_what_nothing_reads(catalog, word, wanted):
    plain = ["ck", "install", f"package:{PACKAGE}", "--tags=fp16", "--extra_tags=a", "--quiet",
             "--env.TENSORRT_WORKSPACE_MIB=9", "--env.IMAGE_COUNT=5", "--deps.onnx=ab"]  # fmt: skip
    environment = [name for name, _, _ in (w[6:].partition("=") for w in [*plain, word])]
    check_install(catalog, plain, environment)
    with pytest.raises(UserError) as raised:
        check_install(catalog, [*plain, word], environment)
    assert wanted in str(raised.value)
    # A run that installs something has options of its own, which are checked elsewhere.
    check_install(catalog, ["ck", "run", word], environment)


def test_an_installation_within_another_gets_none_of_its_variables(catalog):
    check_install(catalog, ["ck", "install", "package:x", "--env.CK_X=1"], ["IMAGE_COUNT"])


def test_what_a_record_has_of_other_variables():
    environment = {
        "CUDA_VISIBLE_DEVICES": "0",
        "CK_BATCH_SIZE": "4",
        "HF_TOKEN": "hf_abc",
        "aws_secret_access_key": "abc",
    }
    assert select_passed(environment) == {
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_TOKEN": "(not recorded)",
        "aws_secret_access_key": "(not recorded)",
    }


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [("", "abc", 3), ("tag", "tags", 1), ("recrod", "record", 2), ("a", "a", 0), ("ab", "b", 1)],
)
def test_edits(first, second, edits):
    assert count_edits(first, second) == count_edits(second, first) == edits
