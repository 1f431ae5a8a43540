"""A submission's tree, written from recorded runs alone."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import replace_folder
from ck_mlperf.loadgen.job import ACCURACY_LOG, DETAIL_LOG, SUMMARY_LOG
from ck_mlperf.loadgen.settings import REHEARSAL
from ck_mlperf.models.recognise import RESNET50_V1_5
from ck_mlperf.results.kept_logs import read_kept
from ck_mlperf.results.record import Record
from ck_mlperf.submission import requirements, texts
from ck_mlperf.submission.check import check_tree
from ck_mlperf.submission.complaints import Complaint
from ck_mlperf.submission.compliance import TestLogs, Verification, verify
from ck_mlperf.submission.requirements import PERFORMANCE_FOLDER
from ck_mlperf.submission.runs import RecordedRun, ScenarioRuns, find_unofficial
from ck_mlperf.submission.system import make_folder_name
from ck_mlperf.submission.truncate import make_hash_line, truncate

ORIGINALS = "-originals"
"""What the name of the folder with the whole accuracy logs ends in."""
_REPOSITORY = Path(__file__).resolve().parents[3]
_SOURCES = ("src", "program", "package", "soft", "script", "module", "README.md", "LICENSE")


@dataclass(frozen=True)
class Submission:
    """What is submitted."""

    division: str
    submitter: str
    system: Mapping[str, str]
    """The description of the system, without division and submitter."""
    scenarios: Mapping[str, ScenarioRuns]
    """By the name of its folder, which is another one's where the scenario is inferred."""

    @property
    def records(self) -> list[Record]:
        return [run.record for runs in self.scenarios.values() for run in runs.list()]

    @property
    def labels(self) -> list[str]:
        """Why the runs are none that MLPerf's rules speak of; empty: nothing is against them."""
        found = [
            reason
            for runs in self.scenarios.values()
            for run in (runs.performance, runs.accuracy)
            for reason in find_unofficial(run.record, self.division)
        ]
        shortest_ms = min(
            runs.performance.record.settings.get_loadgen_number("min_duration_ms")
            for runs in self.scenarios.values()
        )
        names = [record.explore_run or "" for record in self.records]
        is_rehearsal = any(name.startswith(REHEARSAL) for name in names)
        if is_rehearsal or shortest_ms < requirements.LEAST_DURATION_MS:
            found.append(f"a rehearsal: runs of {shortest_ms / 1000:g} s, not of 600 s")
        return list(dict.fromkeys(found))

    @property
    def benchmark(self) -> str:
        """The folder of the benchmark: in open, a network of another name has one of its own."""
        model = self.records[0].model
        is_same = model.network == RESNET50_V1_5 or model.name == requirements.BENCHMARK
        return requirements.BENCHMARK if is_same else make_folder_name(model.name)


def refuse_to_replace(folder: Path, force: bool) -> None:
    """Raise UserError where `folder` exists, unless it is a tree and `force` holds."""
    is_tree = folder.is_dir() and not {path.name for path in folder.iterdir()} - {"closed", "open"}
    if folder.exists() and not (force and is_tree):
        advice = "--force replaces it" if is_tree else "It is no tree of a submission"
        raise UserError(f"{folder}: exists already. {advice}, or choose another name")


def write_submission(submission: Submission, folder: Path) -> list[Complaint]:
    """Write the tree, checked, and beside it the whole accuracy logs. Returns what is wrong.

    folder: gets closed/ or open/; its place is taken by the new tree. Raises UserError, and leaves
    it as it is, where a log is missing, a compliance test has not passed, or, in closed, anything
    is wrong.
    """
    labels = submission.labels
    if submission.division == "closed" and labels:
        raise UserError(
            "closed takes none of this, by MLPerf's rules:\n  "
            + "\n  ".join([*labels, *_quote_checker(submission)])
            + "\n--division=open does, and labels them so"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    originals = folder.with_name(folder.name + ORIGINALS)
    with replace_folder(originals) as kept, replace_folder(folder) as made:
        _Writer(submission, made, kept).write(labels)
        complaints = check_tree(made)
        if submission.division == "closed" and complaints:
            raise UserError(
                "no tree was written, because the closed division would not accept it:\n"
                + "\n".join(complaint.describe() for complaint in complaints)
            )
    return complaints


def verify_test(runs: ScenarioRuns, test: str) -> Verification:
    """The verification of a scenario's compliance test."""
    accuracy, run = runs.accuracy, runs.tests[test]
    reference, compliance = (
        TestLogs(
            _read_log(one, SUMMARY_LOG), _read_log(one, DETAIL_LOG), _read_log(other, ACCURACY_LOG)
        )
        for one, other in ((runs.performance, accuracy), (run, run))
    )
    return verify(test, reference, compliance)


class _Writer:
    def __init__(self, submission: Submission, folder: Path, originals: Path) -> None:
        self._submission = submission
        self._base = Path(submission.division, submission.submitter)
        self._folder = folder
        self._originals = originals

    def write(self, labels: list[str]) -> None:
        """Write all of it."""
        submission, base = self._submission, self._base
        name = make_folder_name(submission.system["system_name"])
        fields = {
            "division": submission.division,
            "submitter": submission.submitter,
            **submission.system,
        }
        self._put(base / "systems" / f"{name}.json", texts.make_system(fields, labels))
        for scenario, runs in submission.scenarios.items():
            place = base / "results" / name / submission.benchmark / scenario
            self._write_scenario(place, scenario, runs, labels)
        calibration = texts.make_calibration(submission.records[0])
        self._put(base / "documentation" / "calibration.md", calibration)
        if submission.division == "open":
            mapping = texts.make_mapping(submission.benchmark, requirements.MODEL)
            self._put(base / "model_mapping.json", mapping)
        self._write_sources(base / "src")

    def _write_scenario(
        self, place: Path, scenario: str, runs: ScenarioRuns, labels: list[str]
    ) -> None:
        record = runs.performance.record
        self._write_logs(place / PERFORMANCE_FOLDER, runs.performance)
        self._write_logs(place / "accuracy", runs.accuracy)
        answers = _read_log(runs.accuracy, ACCURACY_LOG)
        self._put_answers(
            place / "accuracy", answers, texts.make_accuracy_line(runs.accuracy.record)
        )
        inferred = scenario != record.scenario
        self._put(place / "measurements.json", texts.make_measurements(record))
        self._put(place / "user.conf", texts.make_user_conf(record))
        self._put(place / "README.md", texts.make_readme(scenario, runs, labels, inferred))
        for test, run in runs.tests.items():
            self._write_test(place / test, test, runs, run)

    def _write_test(self, place: Path, test: str, runs: ScenarioRuns, run: RecordedRun) -> None:
        verified = verify_test(runs, test)
        if not verified.passed and self._submission.division == "closed":
            raise UserError(
                f"{run.record.scenario}: {'; '.join(verified.reasons)}. Run both again on a quiet "
                "machine, or submit to open"
            )
        for name, text in verified.files.items():
            if name == f"accuracy/{ACCURACY_LOG}":
                self._put_answers(place / "accuracy", text.encode(), "")
            else:
                self._put(place / name, text)

    def _write_logs(self, place: Path, run: RecordedRun) -> None:
        for name in (DETAIL_LOG, SUMMARY_LOG):
            self._put(place / name, _read_log(run, name))

    def _put_answers(self, place: Path, answers: bytes, line: str) -> None:
        """An accuracy log, truncated; beside it its hash; and the whole among the originals."""
        self._put(place / ACCURACY_LOG, truncate(answers))
        self._put(place / "accuracy.txt", line + make_hash_line(answers))
        self._put(place / ACCURACY_LOG, answers, self._originals)

    def _write_sources(self, place: Path) -> None:
        """The code, as of the commit that the first record names, where this checkout has it."""
        repository = self._submission.records[0].environment.repository
        commit = repository.commit if repository else None
        lines = [f"ck-mlperf at commit {commit or 'not noted'}."]
        if repository and not repository.clean:
            lines.append("Files differed from the commit when the runs were made.")
        archive = _archive(commit) if commit else None
        if archive is None:
            lines.append("That commit is not in the checkout that wrote this tree.")
        else:
            with tarfile.open(fileobj=BytesIO(archive)) as tar:
                tar.extractall(self._folder / place / "ck-mlperf", filter="data")
        self._put(place / "README.md", "\n".join(lines) + "\n")

    def _put(self, path: Path, content: str | bytes, root: Path | None = None) -> None:
        target = (root or self._folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)


def _read_log(run: RecordedRun, name: str) -> bytes:
    """The content of one of LoadGen's logs of a run."""
    for log in run.record.logs:
        if log.file == name:
            return read_kept(run.entry, log)
    raise UserError(f"{run.entry}: the record of {run.record.timing.start} names no {name}")


def _archive(commit: str) -> bytes | None:
    """The repository's code as a tar file; None where git does not have it."""
    command = ["git", "-C", str(_REPOSITORY), "archive", "--format=tar", commit, "--", *_SOURCES]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout


def _quote_checker(submission: Submission) -> Iterable[str]:
    """What the official checker would say of the accuracy runs, which are part of the reason."""
    for scenario, runs in submission.scenarios.items():
        record = runs.accuracy.record
        said = f"the submission checker on {scenario}:"
        if record.dataset.used != requirements.DATASET_SIZE:
            yield (
                f"{said} accuracy run does not cover all dataset, accuracy samples: "
                f"{record.dataset.used}, dataset size: {requirements.DATASET_SIZE}"
            )
        if record.accuracy and record.accuracy.top1_percent < requirements.LEAST_ACCURACY:
            yield (
                f"{said} accuracy not met: expected={requirements.LEAST_ACCURACY:f}, "
                f"found={record.accuracy.top1_percent:.3f}"
            )
