"""One run as a job file says: the test, its record and its report, in the current folder.

CK's hook (ck_mlperf.catalog.program) writes the job; ck_mlperf.loadgen.job describes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import NoReturn

from ck_mlperf.common.errors import UserError, run_main
from ck_mlperf.common.files import hash_file, write_file
from ck_mlperf.images.preprocessed import PreprocessedSet, load_preprocessed
from ck_mlperf.loadgen.engines import Engine, make_engine
from ck_mlperf.loadgen.harness.native import choose_interface
from ck_mlperf.loadgen.job import RECORD, REPORT, Job, read_job
from ck_mlperf.loadgen.one_test import RunOutcome, run_test
from ck_mlperf.loadgen.resolve import resolve_devices, resolve_settings
from ck_mlperf.loadgen.run_folder import RUN_ID, hold_folder, remove_results
from ck_mlperf.loadgen.time_limit import TimeLimit, allow_silence
from ck_mlperf.loadgen.watch import end_with_ck
from ck_mlperf.machine.environment import describe_environment
from ck_mlperf.models.model_file import combine_hashes, hash_model, is_in_state, read_states
from ck_mlperf.models.recipe import ModelRecipe
from ck_mlperf.results.accuracy import measure_accuracy
from ck_mlperf.results.build import (
    build_record,
    describe_dataset,
    describe_engine,
    describe_model,
    write_record,
)
from ck_mlperf.results.logs import read_answers, read_result
from ck_mlperf.results.record import Accuracy, Record
from ck_mlperf.results.report import TEXT_WIDTH, WIDTH, format_report

REPOSITORY = Path(__file__).resolve().parents[3]
LOG_DIR = Path()


def run_program(path: Path, program: str) -> NoReturn:
    """Run the job in the file `path` and exit; after an error leave nothing like a result.

    program: the name of the CK program, for the record.
    """
    run_main(lambda: _run_alone(path, program))


def _run_alone(path: Path, program: str) -> None:
    # The `ck` that has started this run holds the folder.
    run_id = os.environ.get(RUN_ID)
    with hold_folder(LOG_DIR) if run_id is None else contextlib.nullcontext():
        try:
            remove_results()
            job = read_job(path)
            if run_id is None:
                run_and_report(job, program)
            elif run_id != job.run_id:
                raise UserError(f"{path}: another run has replaced it. Run again")
            else:
                with end_with_ck(job.ck, run_id):
                    run_and_report(job, program)
        except BaseException:
            remove_results()
            raise


def run_and_report(job: Job, program: str) -> None:
    """Run the job; leave the record and the report, and print the report."""
    record = run_job(job, program)
    detail = job.settings.silent, job.settings.verbose
    write_file(Path(REPORT), format_report(record, *detail))
    write_record(record, Path(RECORD))
    width, colour = TEXT_WIDTH, False
    if sys.stdout.isatty():
        width, colour = shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR")
    print(format_report(record, *detail, max(width, WIDTH), colour), end="")
    sys.stdout.flush()  # at the interpreter's end an error would come too late to be one


def run_job(job: Job, program: str) -> Record:
    """Run the job's test and return its record."""
    recipe = ModelRecipe.from_dict(job.recipe)
    images = load_preprocessed(job.images)
    engines = [
        make_engine(job.engine, job.model, recipe, device=device)
        for device in resolve_devices(job.settings, job.engine)
    ]
    settings = resolve_settings(job.settings, len(images.labels), engines[0].max_batch)
    model = describe_model(recipe, job.sha256, find_precision(job, recipe))
    dataset = describe_dataset(images.manifest, settings.dataset_size)
    interface, reason = choose_interface(job.loadgen_native)
    start = datetime.now(timezone.utc)
    with contextlib.ExitStack() as opened:
        silence_s = allow_silence(settings.batch_size)
        limit = opened.enter_context(TimeLimit(settings.timeout_s, silence_s, remove_results))
        for engine in engines:
            open_checked(job, engine, opened)
        described_engine = describe_engine(engines, settings.batch_size)
        for note in job.settings.conf_notes:
            print(note, flush=True)
        if reason:
            print(f"LoadGen by its Python module, not by its C++ interface: {reason}", flush=True)
        outcome = run_test(
            settings, engines, images.images, LOG_DIR, interface, limit, images.check_loading
        )
    return build_record(
        program=program,
        outcome=outcome,
        result=read_result(LOG_DIR),
        accuracy=measure(outcome, images),
        engine=described_engine,
        model=model,
        dataset=dataset,
        environment=describe_environment(REPOSITORY),
        deps=job.deps,
        start=start,
        passed=job.passed,
        run_id=os.environ.get(RUN_ID),
    )


def open_checked(job: Job, engine: Engine, opened: contextlib.ExitStack) -> None:
    """Open an engine, and check that what it has read is what was registered with CK.

    A plan or an ONNX file is hashed as the engine reads it, its external data right after. Raises
    UserError; OSError.
    """
    external = job.external_files
    try:
        before = read_states(job.model, external)
        opened.enter_context(engine)
        own = engine.model_sha256 or hash_file(job.model)
        found = combine_hashes(own, job.model, external)
    except (UserError, OSError):
        with contextlib.suppress(OSError):  # what has changed may be unreadable: this says why
            refuse_changed(job, hash_model(job.model, external))
        raise
    refuse_changed(job, found)
    if external and not is_in_state(job.model, before):
        raise UserError(f"{job.model}: its files changed while they were read. Run again")


def refuse_changed(job: Job, sha256: str) -> None:
    """Raise UserError where the model's sha256 is not the one that was registered with CK."""
    if sha256 == job.sha256:
        return
    advice = f"Register it again: ck detect soft:model.onnx --full_path={job.model}"
    if job.engine == "tensorrt":
        advice = "A run with the plan's tags, in place of its UID, registers it again"
    raise UserError(
        f"{job.model} has changed since it was registered with CK: its sha256 is {sha256}, was "
        f"{job.sha256}. {advice}"
    )


def find_precision(job: Job, recipe: ModelRecipe) -> str:
    """What the model computes in: a plan's sidecar has it, of an ONNX file the recipe."""
    if job.engine != "tensorrt":
        return recipe.file_precision
    from ck_mlperf.tensorrt.plan_file import read_sidecar

    return read_sidecar(job.model).key.precision


def measure(outcome: RunOutcome, images: PreprocessedSet) -> Accuracy | None:
    """The accuracy, in the modes that have one."""
    settings = outcome.settings
    if not settings.measures_accuracy:
        return None
    labels = images.labels[: settings.dataset_size]
    may_repeat = settings.scenario == "MultiStream"
    return measure_accuracy(read_answers(outcome.log_dir), labels, outcome.top5, may_repeat)
