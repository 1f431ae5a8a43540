"""Files that somebody else made: each is read rightly or refused with a message, and no more."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib.pyplot  # noqa: F401 - here, so that not every case imports it
import mlperf_loadgen
import numpy as np
import onnxruntime  # noqa: F401
import yaml

from ck_mlperf.analyze.page import build_page
from ck_mlperf.analyze.rows import read_experiments
from ck_mlperf.analyze.runs import group_points
from ck_mlperf.commands import main
from ck_mlperf.common.archives import unpack
from ck_mlperf.common.errors import UserError
from ck_mlperf.common.tags import is_name
from ck_mlperf.images.dataset import read_image_list
from ck_mlperf.images.decode import decode_image
from ck_mlperf.images.preprocessed import load_preprocessed
from ck_mlperf.images.recipe import ImageRecipe
from ck_mlperf.loadgen.engines import make_engine
from ck_mlperf.loadgen.job import ACCURACY_LOG, DETAIL_LOG, read_job
from ck_mlperf.loadgen.loadgen_settings import list_values
from ck_mlperf.loadgen.user_conf import MODEL, read_user_conf
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.results.kept_logs import keep_content, read_kept
from ck_mlperf.results.logs import read_answers, read_result
from ck_mlperf.results.record import File
from ck_mlperf.submission.system import read_system
from ck_mlperf.tensorrt.api.interface import IoTensor
from ck_mlperf.tensorrt.key import Target
from ck_mlperf.tensorrt.plan_file import Sidecar, read_plan, write_plan
from ck_mlperf.tensorrt.timing_cache import describe_last

from ..builders.images import write_images
from ..builders.plans import KEY
from ..builders.records import FAILURE, make_json
from ..builders.submission import SYSTEM, read_logs
from ..builders.tiny_model import make_onnx, write_recipe
from ..explore.conftest import FakeCk
from . import writers
from .mutate import mutate, replace_file
from .processes import run

MEMORY_BYTES = 8 << 30
OTHER_SHARE = 0.1  # of cases in which something else is in place of the file
LIMIT_S = 20
"""Only a hang takes so long."""
SCENARIO = "Offline"


class Input(NamedTuple):
    """A file that is read."""

    name: str
    file: str
    prepare: Callable[[Path], object]
    """Writes it, and what it needs beside it, into an empty folder."""
    read: Callable[[], object]
    """Reads it in the current folder. Returns what was read. What it finds to be wrong is an
    AssertionError."""
    is_json: bool = False
    is_protected: bool = False
    """By a digest: what is read is what was written."""


def read_model() -> None:
    path = Path("model.onnx")
    recipe = load_model_recipe(path)
    assert is_name(recipe.name), recipe.name
    with make_engine("onnx", path, recipe):
        pass


def prepare_model(folder: Path) -> None:
    path = make_onnx(folder / "model.onnx", classes=10)
    write_recipe(path, name="model", dataset="digits")


def prepare_jpeg(folder: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    assert cv2.imwrite(str(folder / "image.jpg"), cv2.GaussianBlur(pixels, (9, 9), 0))


def read_jpeg() -> None:
    pixels = np.empty((32, 32, 3), np.uint8)
    decode_image(Path("image.jpg"), ImageRecipe(side=32), pixels)


def read_set() -> Any:
    found = load_preprocessed(Path("out"), verify=True)
    return found.images.tobytes(), found.labels.tobytes(), found.names


def prepare_points(folder: Path) -> None:
    for name, run_part in (("good", make_json()), ("odd", make_json())):
        entry = folder / "local" / "experiment" / name
        entry.mkdir(parents=True)
        point = {"characteristics_list": [{"run": run_part}]}
        (entry / "ckp-0000000000000001.0001.json").write_text(json.dumps(point))
    (folder / "local" / "experiment" / "odd" / "failed-a.json").write_text(json.dumps(FAILURE))


def read_points() -> None:
    """The good record is shown, whatever the odd one is."""
    runs, passed_over, _ = read_experiments([Path("local")])
    group_points(runs)
    page = build_page(runs, datetime.now(timezone.utc), notices=passed_over)
    assert b"<script>alert" not in page
    assert "good" in {run.experiment for run in runs}
    assert b"good" in page


USER_CONF = f"""# as LoadGen's own
*.{SCENARIO}.min_duration = 600000
{MODEL}.*.min_query_count = 100
*.*.performance_issue_unique = 1
{MODEL}.{SCENARIO}.target_qps = 12.5
ssd-mobilenet.*.min_duration = 7
*.Server.target_latency = 15
"""


def read_conf() -> None:
    """What is accepted, LoadGen reads so as well."""
    path = Path("user.conf")
    conf = read_user_conf(path, SCENARIO)
    if conf.problems:
        raise UserError("\n".join(conf.problems))
    lines = [f"*.{SCENARIO}.{key} = {value!r}\n" for key, value in conf.values.items()]
    plain = Path("..", "out")
    plain.mkdir()
    (plain / "plain.conf").write_text("".join(lines))
    read = [ask_loadgen(one) for one in (path, plain / "plain.conf")]
    assert read[0] == read[1], f"LoadGen reads {read[0]}, and of {lines} {read[1]}"


def ask_loadgen(path: Path) -> dict[str, Any]:
    test = mlperf_loadgen.TestSettings()
    assert test.FromConfig(str(path), MODEL, SCENARIO, 2) == 0
    values = list_values(test)
    others = ("server_", "single_stream_", "multi_stream_")  # LoadGen keeps what it does not use
    return {name: values[name] for name in values if not name.startswith(others)}


SWEEP = """\
scenario: Offline
batch: 1,2,4..16
repetitions: 2
count: 8
name: s
env: {CK_VERBOSE: 1}
"""


def prepare_sweep(folder: Path) -> None:
    FakeCk(folder)
    (folder / "sweep.yaml").write_text(SWEEP)


def read_sweep() -> None:
    sys.executable = "/no/python"  # the `ck` beside it would be taken
    os.environ["CK_LOCAL_REPO"] = str(Path("local").absolute())
    os.environ["PATH"] = os.pathsep.join([str(Path("bin").absolute()), os.environ["PATH"]])
    if main(["explore", "--file=sweep.yaml", "--dry_run"]):
        raise UserError("refused")


def prepare_plan(folder: Path) -> None:
    prepare_model(folder)
    recipe = replace(load_model_recipe(folder / "model.onnx"), max_batch=KEY.max_batch)
    tensors = [
        IoTensor("images", True, "float32", (-1, 3, 8, 8)),
        IoTensor("scores", False, "float32", (-1, 10)),
    ]
    content = b"ptrt" + bytes(range(256)) * 4
    sidecar = Sidecar.of(KEY, content, recipe, tensors, {"seconds": 1})
    write_plan(folder / "model.plan", content, sidecar)


def read_the_plan() -> bytes:
    return read_plan(Path("model.plan"), Target(KEY.flavour, KEY.version, None))


CONTENT = b"a log\n" * 100
KEPT = File("mlperf_log_detail.txt", hashlib.sha256(CONTENT).hexdigest())


def prepare_archive(folder: Path) -> None:
    write_images(folder / "images", 2)
    with tarfile.open(folder / "images.tar.gz", "w:gz") as packed:
        packed.add(folder / "images", "images")


def prepare_loadgen_logs(folder: Path) -> None:
    for name, content in read_logs()["Offline", "accuracy"].items():
        (folder / name).write_bytes(content)


def read_loadgen_logs() -> None:
    read_result(HERE)
    list(read_answers(HERE))


def prepare_system(folder: Path) -> None:
    (folder / "system.yaml").write_text(yaml.safe_dump(SYSTEM))


def prepare_labels(folder: Path) -> None:
    write_images(folder / "images", 4)


HERE = Path()
INPUTS = [
    Input("an ONNX file", "model.onnx", prepare_model, read_model),
    Input("a recipe", "model.json", prepare_model, read_model, is_json=True),
    Input("a JPEG", "image.jpg", prepare_jpeg, read_jpeg),
    Input("labels", "images/val_map.txt", prepare_labels, lambda: read_image_list(HERE / "images")),
    *(
        Input(
            f"a preprocessed set's {name}",
            f"out/{name}",
            lambda folder: writers.prepare_set(folder, 24),
            read_set,
            is_json=name.endswith("json"),
            is_protected=True,
        )
        for name in ("images.npy", "val_map.txt", "manifest.json")
    ),
    *(
        Input(f"a {what}", f"local/experiment/odd/{name}", prepare_points, read_points, True)
        for what, name in (
            ("point", "ckp-0000000000000001.0001.json"),
            ("failure's note", "failed-a.json"),
        )
    ),
    Input(
        "a user.conf",
        "user.conf",
        lambda folder: (folder / "user.conf").write_text(USER_CONF),
        read_conf,
    ),
    Input(
        "a sweep's YAML",
        "sweep.yaml",
        prepare_sweep,
        read_sweep,
    ),
    Input("a job", "job.json", writers.prepare_run, lambda: read_job(HERE / "job.json"), True),
    Input("a plan", "model.plan", prepare_plan, read_the_plan, is_protected=True),
    Input("a sidecar", "model.plan.json", prepare_plan, read_the_plan, True, is_protected=True),
    Input(
        "a kept log",
        f"logs/{KEPT.sha256}.gz",
        lambda folder: keep_content(folder, CONTENT, KEPT.sha256, "a log"),
        lambda: read_kept(HERE, KEPT),
        is_protected=True,
    ),
    *(
        Input(f"LoadGen's {name}", name, prepare_loadgen_logs, read_loadgen_logs)
        for name in (DETAIL_LOG, ACCURACY_LOG)
    ),
    Input(
        "an archive",
        "images.tar.gz",
        prepare_archive,
        lambda: unpack(HERE / "images.tar.gz", HERE / ".." / "out"),
    ),
    Input(
        "a system's description",
        "system.yaml",
        prepare_system,
        lambda: read_system(HERE / "system.yaml", {}, "s"),
    ),
    Input(
        "a history of builds",
        "plan-build-times.json",
        lambda folder: (folder / "plan-build-times.json").write_text(
            json.dumps([{"kind": ["tensorrt", "10", {}, "int8"], "max_batch": 32,
                         "model_bytes": 100, "seconds": 3.5}])
        ),
        lambda: describe_last(HERE, KEY, 100),
        is_json=True,
    ),
]  # fmt: skip


class Hostile:
    """One of INPUTS, changed, and read."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder = seed, folder
        self._answers = {}
        for one in INPUTS:
            path = folder / one.name
            path.mkdir()
            one.prepare(path)
            self._copy(one)
            ended = self._read(one)
            assert ended.code == 0, f"{one.name}: {ended.said}"
            self._answers[one.name] = self._answer
        self._contents = {one.name: (folder / one.name / one.file).read_bytes() for one in INPUTS}

    @property
    def _answer(self) -> str:
        return (self._folder / "answer").read_text()

    def describe(self, index: int) -> str:
        return f"{INPUTS[index % len(INPUTS)].name}"

    def try_case(self, index: int) -> None:
        """Raises AssertionError where a promise is not kept."""
        one = INPUTS[index % len(INPUTS)]
        draw = random.Random(f"{self._seed} {index}")
        sandbox = self._copy(one)
        path = sandbox / "here" / one.file
        if draw.random() < OTHER_SHARE:
            replace_file(draw, path)
        else:
            path.write_bytes(mutate(draw, self._contents[one.name], one.is_json))
        before = list_tree(sandbox, but=path)
        ended = self._read(one)
        ended.check_said()
        assert ended.code in (0, 2), f"status {ended.code}: {ended.said}"
        assert not any(code in ended.said for code in ("\x1b", "\0")), repr(ended.said)
        shutil.rmtree(sandbox / "out", ignore_errors=True)
        assert list_tree(sandbox, but=path) == before, "it has written something"
        if one.is_protected and ended.code == 0:
            assert self._answer == self._answers[one.name], "what was read is not what was written"

    def _copy(self, one: Input) -> Path:
        sandbox = self._folder / "sandbox"
        shutil.rmtree(sandbox, ignore_errors=True)
        shutil.copytree(self._folder / one.name, sandbox / "here", symlinks=True)
        return sandbox

    def _read(self, one: Input) -> Any:
        answer = self._folder / "answer"
        answer.unlink(missing_ok=True)

        def step() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            found = one.read()
            answer.write_text(hashlib.sha256(repr(found).encode(errors="replace")).hexdigest())

        return run(step, self._folder / "sandbox" / "here", self._folder / "said", LIMIT_S)


def list_tree(folder: Path, but: Path) -> dict[str, bytes | None]:
    """What is in a folder, `but` one path: the contents of its files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path != but
    }
