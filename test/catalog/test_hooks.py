"""The hooks' own rules; `test/program/` runs them under the real CK."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from ck_mlperf.catalog import install, kernel, program


def test_steps_are_filled_in_and_optional_parts_left_out():
    step = ["-m", "tool", "${URL}", ["--mirror", "${MIRROR}"], ["--file", "${FILE}"]]
    values = {"URL": "http://x/?a=1&b=$(2)", "MIRROR": "", "FILE": "/a b"}
    assert install.expand(step, values) == ["-m", "tool", "http://x/?a=1&b=$(2)", "--file", "/a b"]


def test_a_step_with_an_unknown_name_is_an_error():
    with pytest.raises(KeyError):
        install.expand(["${NOT_THERE}"], {})


def step_input(tmp_path, steps):
    python = {"dict": {"customize": {"full_path": sys.executable}}}
    return {
        "install_path": str(tmp_path / "installed"),
        "path_original_package": str(tmp_path),
        "customize": {"steps": steps},
        "new_env": {"WHAT": "done"},
        "deps": {"python": python},
    }


def test_steps_run_without_a_shell(tmp_path):
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    steps = [["-c", code, "${INSTALL_DIR}/out", "${WHAT}; touch $$HOME/x"]]
    assert install.setup(step_input(tmp_path, steps)) == {"return": 0}
    assert (tmp_path / "installed" / "out").read_text() == "done; touch $HOME/x"


def test_a_failed_step_ends_the_command_with_its_code(tmp_path):
    with pytest.raises(SystemExit) as ended:
        install.setup(step_input(tmp_path, [["-c", "raise SystemExit(7)"], ["-c", "1/0"]]))
    assert ended.value.code == 7


@pytest.mark.parametrize("value", ["$HOME", "a;b", "a&b", "`id`", "'", '"', "a\nb", "(x)"])
def test_values_for_a_shell_are_refused(value, capsys):
    with pytest.raises(SystemExit) as ended:
        program.check_plain({"CK_LOADGEN_CONF_FILE": value})
    assert ended.value.code == 2
    assert "CK_LOADGEN_CONF_FILE" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", "/a/b-c_d.conf", "1,2", "1e-3", "a b"])
def test_plain_values_pass(value):
    program.check_plain({"CK_LOADGEN_CONF_FILE": value})


def test_stale_results_are_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("job.json", "record.json", "failure.json", "report.txt", "mlperf_log_detail.txt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "kept.txt").write_text("mine")
    program.remove_stale_results()
    assert os.listdir(tmp_path) == ["kept.txt"]


def test_a_program_that_said_nothing_was_killed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        program.ck_postprocess({})
    assert ended.value.code == 1
    assert "killed" in capsys.readouterr().err


def test_repository_is_found_from_the_hooks(repository):
    assert os.path.samefile(kernel.REPOSITORY, repository)


def benchmark(*flags: str) -> list[str]:
    return ["/bin/ck", "benchmark", "program:image-classification-tensorrt-loadgen-py", *flags]


@pytest.mark.parametrize(
    "flags",
    [
        ["--record"],
        ["--record", "--record_uoa="],
        ["--record=yes", "--record_uoa=a/b"],
        ["--record", "--record_uoa=sweep,1"],
    ],
)
def test_a_recording_without_a_name_that_ck_takes_is_refused(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        program.check_recording(benchmark(*flags))
    assert ended.value.code == 2
    assert "--record_uoa=NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        benchmark("--record", "--record_uoa=mlperf.closed.resnet-50", "--record_repo=local"),
        benchmark("--record", "--record_uoa=local:experiment:sweep"),
        benchmark("--record_uoa=unused/name"),
        ["/bin/ck", "run", "program:x", "--record"],
        ["script.py"],
    ],
)
def test_other_commands_pass(arguments):
    program.check_recording(arguments)


def load_customize(repository, entry: str):
    path = repository / "soft" / entry / "customize.py"
    spec = importlib.util.spec_from_file_location(f"customize_{entry}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_model_is_inspected_once_for_each_state_of_its_files(repository, tmp_path, monkeypatch):
    customize = load_customize(repository, "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"one")
    calls = []

    def run(command, **options):
        calls.append(command)
        stdout = '{"name": "m", "weights": "trained", "sha256": "0"}'
        return subprocess.CompletedProcess(command, 0, stdout=stdout)

    monkeypatch.setattr(customize.subprocess, "run", run)
    deps = step_input(tmp_path, [])["deps"]
    for changed in (None, "model.onnx", "model.json"):
        if changed:
            (tmp_path / changed).write_bytes(b"another")
        for _ in range(2):
            assert customize.inspect(str(tmp_path / "model.onnx"), deps)["name"] == "m"
    assert len(calls) == 3
