"""Run one LoadGen test as a job file says, and leave what came of it in the current folder.

    python run.py job.json

CK's hook (src/ck_mlperf/catalog/program.py) writes the job file: the settings, the model with its
recipe, the images, the resolved deps. The same command repeats the test without CK.

Leaves record.json (its shape: ck_mlperf/results/record.schema.json), report.txt and LoadGen's logs.
After an error: a message on stderr, failure.json with the exit code, and none of the others.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import hash_file, write_file
from ck_mlperf.images.preprocess import PreprocessedSet, load_preprocessed
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.loadgen.harness.native import choose_interface
from ck_mlperf.loadgen.run import RunOutcome, remove_logs, run_test
from ck_mlperf.loadgen.settings import (
    RunSettings,
    read_settings,
    resolve_devices,
    resolve_settings,
)
from ck_mlperf.machine.environment import describe_environment
from ck_mlperf.models.recipe import ModelRecipe
from ck_mlperf.results import record
from ck_mlperf.results.accuracy import Accuracy, measure_accuracy
from ck_mlperf.results.logs import read_answers, read_result
from ck_mlperf.results.report import describe_run, format_report

PROGRAM = Path(__file__).resolve().parent
LOG_DIR = Path()


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    settings = read_settings(job["environment"])
    run = run_job(job, settings)
    report = format_report(run, settings.silent, settings.verbose)
    write_file(Path("report.txt"), report)
    record.write_record(run, Path("record.json"))
    print(report.partition("\n")[2], end="")  # its first line was printed before the test


def run_job(job: Mapping[str, Any], settings: RunSettings) -> dict[str, Any]:
    """Run the job's test, after a line that says of what, and return its record."""
    model_path = Path(job["model"])
    recipe = ModelRecipe.from_dict(job["recipe"])
    images = load_preprocessed(Path(job["images"]))
    kind = job.get("engine", "onnx")
    devices = resolve_devices(settings, kind)
    engines = [make_engine(kind, model_path, recipe, device=device) for device in devices]
    settings = resolve_settings(settings, len(images.labels), engines[0].max_batch)
    model = record.describe_model(recipe, check_unchanged(kind, model_path, job["sha256"]))
    dataset = record.describe_dataset(images.manifest, settings.dataset_size)
    library = job.get("loadgen_native")
    interface, reason = choose_interface(library and Path(library))
    start = datetime.now(timezone.utc)
    with contextlib.ExitStack() as opened:
        for engine in engines:
            opened.enter_context(engine)
        described_engine = record.describe_engine(engines, settings.batch_size)
        print(describe_run(dataset, model, described_engine), flush=True)
        if reason:
            print(f"LoadGen by its Python module, not by its C++ interface: {reason}", flush=True)
        outcome = run_test(settings, engines, images.images, LOG_DIR, interface)
    return record.build_record(
        program=PROGRAM.name,
        outcome=outcome,
        result=read_result(LOG_DIR),
        accuracy=measure(outcome, images),
        engine=described_engine,
        model=model,
        dataset=dataset,
        environ=job["environment"],
        environment=describe_environment(PROGRAM.parent.parent),
        deps=job["deps"],
        start=start,
    )


def check_unchanged(kind: str, path: Path, registered: str) -> str:
    """The sha256 of the model's file, which must be the one that was registered with CK.

    Of a plan, what its sidecar says: the engine hashes the plan as it reads it, and refuses one
    that is not its sidecar's.
    """
    if kind == "tensorrt":
        from ck_mlperf.tensorrt.plan import read_sidecar

        digest = read_sidecar(path).plan_sha256
        advice = "A run with the plan's tags, in place of its UID, registers it again"
    else:
        digest = hash_file(path)
        advice = f"Register it again: ck detect soft:model.onnx --full_path={path}"
    if digest != registered:
        raise UserError(
            f"{path} has changed since it was registered with CK: its sha256 is {digest}, was "
            f"{registered}. {advice}"
        )
    return digest


def measure(outcome: RunOutcome, images: PreprocessedSet) -> Accuracy | None:
    """The accuracy, in the modes that have one."""
    settings = outcome.settings
    if settings.mode not in ("AccuracyOnly", "SubmissionRun"):
        return None
    labels = images.labels[: settings.dataset_size]
    may_repeat = settings.scenario == "MultiStream"
    return measure_accuracy(read_answers(outcome.log_dir), labels, outcome.top5, may_repeat)


def run() -> NoReturn:
    """`main`, and after an error nothing that looks like a result."""
    code: Any = 1  # what Python exits with after a defect
    try:
        run_main(main)
    except SystemExit as ended:
        code = ended.code
        raise
    finally:
        if code:
            remove_logs(LOG_DIR)
            Path("report.txt").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a full disk: the error is on stderr already
                # CK does not tell its hooks how the program ended.
                write_file(Path("failure.json"), json.dumps({"exit_code": code}))


if __name__ == "__main__":
    run()
