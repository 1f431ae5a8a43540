"""What writes files, and how to tell what is left of it when it is stopped."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import numpy as np

from ck_mlperf.catalog import recording
from ck_mlperf.commands import main
from ck_mlperf.common.errors import UserError
from ck_mlperf.images.dataset import read_image_list
from ck_mlperf.images.decode import decode_image
from ck_mlperf.images.layout import arrange_images
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.loadgen.job import DETAIL_LOG, RECORD, REPORT, SUMMARY_LOG
from ck_mlperf.results import job_run
from ck_mlperf.results.experiments import list_files, read_records
from ck_mlperf.results.kept_logs import read_kept
from ck_mlperf.results.migrate import read_record
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.key import Target
from ck_mlperf.tensorrt.plan_file import PlanError, read_plan, read_sidecar
from ck_mlperf.tensorrt.request import BuildRequest
from ck_mlperf.tensorrt.timing_cache import use_cache

from ..builders.images import write_images
from ..builders.plans import A100, build_graph, write_fake, write_model
from ..builders.records import make_json, make_record
from ..fakes.driver import write_gpus
from .processes import run

COMMAND = ["/bin/ck", "benchmark", "program:image-classification-tensorrt-loadgen-py"]
EXPERIMENT = "bc0409fb61f0aa82"
ROOT = Path(__file__).resolve().parents[2]


class Writer(NamedTuple):
    """Something that writes files in the current folder."""

    name: str
    prepare: Callable[[Path], None]
    """Makes what is there before, in an empty folder."""
    write: Callable[[], object]
    check: Callable[[Path], bool]
    """Whether what it writes is there. Raises AssertionError where something is half-made, where
    it is neither the old nor the new, or where what was there before is lost."""
    no_result_after_an_error: bool = False


def load_ck(repos: Path) -> Any:
    """CK's kernel in this process. It makes its home, where there is none."""
    for variable in ("CK_LOCAL_REPO", "CK_ROOT", "CK_CFG"):
        os.environ.pop(variable, None)
    os.environ["CK_REPOS"] = str(repos.absolute())
    warnings.simplefilter("ignore")  # CK is older than the Pythons that it is run by
    import ck.kernel as ck

    ck.access({"action": "find", "module_uoa": "module", "data_uoa": "experiment"})
    return ck


def record_run(repos: Path, run_id: str, name: str = "runs") -> None:
    """Do what a `ck benchmark --record` does with CK, but for the run: its logs are here."""
    ck = load_ck(repos)
    recording.prepare_writes(ck)
    flags = ["--record", "--record_repo=local", f"--record_uoa={name}"]
    recording.prepare_recording(ck, [*COMMAND, *flags])
    made = describe_run(run_id)
    recording.hold_files(made)
    point = {"characteristics_list": [{"run": made}], "tags": ["x"]}
    wanted = {"module_uoa": EXPERIMENT, "repo_uoa": "local", "experiment_uoa": name}
    options = {"skip_stat_analysis": "yes", "record_all_subpoints": "yes"}
    done = ck.access({"action": "add", **wanted, **options, "dict": point})
    if done["return"]:
        raise UserError(f"CK error: {done['error']}")


def describe_run(run_id: str) -> dict[str, Any]:
    """The record of a run whose logs are those of `make_logs`."""
    logs = [
        {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in make_logs(run_id).items()
    ]
    return make_json(run_id=run_id, logs=logs, settings={"user_conf": None})


def make_logs(run_id: str) -> dict[str, bytes]:
    return {name: f"{name} of {run_id}\n".encode() * 50 for name in (DETAIL_LOG, SUMMARY_LOG)}


def write_logs(folder: Path, run_id: str) -> None:
    for name, content in make_logs(run_id).items():
        (folder / name).write_bytes(content)


def read_runs(repos: Path, name: str = "runs") -> list[str]:
    """The ids of the runs that are recorded, each of which has all that belongs to it."""
    entry = repos / "local" / "experiment" / name
    runs = []
    for file in list_files(entry):
        for record in read_records(file.path):
            assert record is not None, f"{file.path} has something that is no record"
            assert record.run_id is not None
            found = msgspec.to_builtins(record)
            wanted = msgspec.to_builtins(make_record(**describe_run(record.run_id)))
            assert found == wanted, f"{file.path} is not what was recorded"
            contents = {log.file: read_kept(entry, log) for log in record.logs}
            assert contents == make_logs(record.run_id)
            runs.append(record.run_id)
    return runs


def prepare_recording(folder: Path, *before: str) -> None:
    """A repository with a folder of the user's, and the recorded runs `before`."""
    repos = folder / "repos"
    write_notes(repos / "local" / "experiment" / "my-notes")
    steps = [lambda: load_ck(repos) and None]  # CK's own home is made without hooks of ours
    steps += [lambda run_id=run_id: record_run(repos, run_id) for run_id in before]
    for run_id, step in zip(("", *before), steps, strict=True):
        write_logs(folder, run_id)
        ended = run(step, folder, folder / "said")
        assert ended.code == 0, ended.said
    (folder / "said").unlink()
    write_logs(folder, "new")


def check_recording(folder: Path, *before: str) -> bool:
    notes = folder / "repos" / "local" / "experiment" / "my-notes" / "precious.txt"
    assert notes.read_text() == "mine"
    runs = {*read_runs(folder / "repos")}
    assert runs <= {*before, "new"}
    assert runs >= {*before}, f"lost: {set(before) - runs}"
    return "new" in runs


def write_notes(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "precious.txt").write_text("mine")


# A preprocessed set: new, and in place of one of another recipe.

SIDE = 16


def prepare_set(folder: Path, *before: int) -> None:
    write_images(folder / "images", 8)
    for side in before:
        preprocess(folder / "images", folder / "out", ImageRecipe(side=side), workers=1)


def check_set(folder: Path) -> bool:
    try:
        found = load_preprocessed(folder / "out", verify=True)
    except UserError:
        return False
    pixels = np.empty((found.recipe.side, found.recipe.side, 3), np.uint8)
    for name, row in zip(found.names, found.images, strict=True):
        decode_image(folder / "images" / name, found.recipe, pixels)
        assert np.array_equal(row, pixels), f"{name} is not what was decoded"
    return found.recipe.side == SIDE


# A plan with its sidecar, and the timings that builds share.

VERSION = "10.13.0.35"


def prepare_plan(folder: Path) -> None:
    write_model(folder / "model.onnx", build_graph("fp32", "N", "Relu"))
    write_fake(folder / "site", VERSION)
    (folder / "programs").mkdir()
    write_gpus(folder / "programs", A100)


def make_plan_request(folder: Path, name: str = "model.plan") -> BuildRequest:
    return BuildRequest(
        model=folder / "model.onnx",
        output=folder / "plans" / name,
        precision="fp32",
        max_batch=4,
        flavour="tensorrt",
    )


def build_fake_plan(folder: Path, name: str = "model.plan") -> None:
    sys.path.insert(0, str(folder / "site"))
    os.environ["PATH"] = os.pathsep.join([str(folder / "programs"), os.environ["PATH"]])
    build_plan(make_plan_request(folder, name))


def check_plan(folder: Path, name: str = "model.plan") -> bool:
    for cache in (folder / "plans").glob("timing-*.cache"):
        assert use_cache(mock.Mock(), "TensorRT", cache) == []
    plan = make_plan_request(folder, name).output
    try:
        sidecar = read_sidecar(plan)
        content = read_plan(plan, Target(sidecar.key.flavour, sidecar.key.version, None))
    except PlanError:
        return False
    assert content.startswith(b"ptrt")
    json.loads(content[4:])
    return True


# What a run leaves: its record and its report.


def prepare_run(folder: Path) -> None:
    (folder / "job.json").write_text((ROOT / "examples" / "job.json").read_text())


def run_job() -> None:
    """A job whose LoadGen test is done already."""
    record = make_record(run_id=None)
    with mock.patch.object(job_run, "run_job", return_value=record):
        job_run.run_program(Path("job.json"), "image-classification")


def check_run(folder: Path) -> bool:
    try:
        content = (folder / RECORD).read_bytes()
    except FileNotFoundError:
        return False
    assert read_record(content) == make_record(run_id=None)
    assert (folder / REPORT).read_text().endswith("\n")
    return True


# The page about recorded runs, in place of an older one.

PAGE = "report.html"


def prepare_page(folder: Path) -> None:
    entry = folder / "local" / "experiment" / "runs"
    entry.mkdir(parents=True)
    point = {"characteristics_list": [{"run": make_json()}]}
    (entry / "ckp-0000000000000001.0001.json").write_text(json.dumps(point))
    ended = run(write_page, folder, folder / "said")
    assert ended.code == 0, ended.said
    (folder / PAGE).write_text((folder / PAGE).read_text().replace("</html>", "old</html>"))


def write_page() -> None:
    os.environ["CK_LOCAL_REPO"] = str(Path("local").absolute())
    assert main(["report", f"--out_file={PAGE}"]) == 0


def check_page(folder: Path) -> bool:
    text = (folder / PAGE).read_text()
    assert text.rstrip().endswith("</html>")
    return not text.rstrip().endswith("old</html>")


# Links to the images of a flat folder, with their labels.

NAMES = [f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 2, 3)]


def prepare_links(folder: Path) -> None:
    (folder / "given").mkdir()
    for name in NAMES:
        (folder / "given" / name).write_text("an image")
    (folder / "val.txt").write_text("".join(f"{name} 7\n" for name in NAMES))
    (folder / "synsets.txt").write_text("n01440764\n")


def check_links(folder: Path) -> bool:
    made = folder / "made" / "images"
    if not made.exists():
        return False
    assert read_image_list(made) == [(name, 7) for name in NAMES]
    assert {(made / name).read_text() for name in NAMES} == {"an image"}
    return True


HERE = Path()
RECORDINGS = [
    Writer(
        "a first recording",
        prepare_recording,
        lambda: record_run(HERE / "repos", "new"),
        check_recording,
    ),
    Writer(
        "a later recording",
        lambda folder: prepare_recording(folder, "old", "older"),
        lambda: record_run(HERE / "repos", "new"),
        lambda folder: check_recording(folder, "old", "older"),
    ),
]
WRITERS = [
    Writer(
        "a preprocessed set",
        prepare_set,
        lambda: preprocess(HERE / "images", HERE / "out", ImageRecipe(side=SIDE), workers=1),
        check_set,
    ),
    Writer(
        "a preprocessed set in place of another",
        lambda folder: prepare_set(folder, 24),
        lambda: preprocess(HERE / "images", HERE / "out", ImageRecipe(side=SIDE), workers=2),
        check_set,
    ),
    Writer("a plan", prepare_plan, lambda: build_fake_plan(Path.cwd()), check_plan),
    Writer("a run", prepare_run, run_job, check_run, no_result_after_an_error=True),
    Writer("a page", prepare_page, write_page, check_page),
    Writer(
        "links to images",
        prepare_links,
        lambda: arrange_images(Path("given").absolute(), HERE / "made", Path.cwd),
        check_links,
    ),
]
