"""Real TensorRT plans of the embedded network, for tests on an NVIDIA GPU: `make test-gpu`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.images.preprocess import preprocess
from ck_mlperf.machine.gpus import list_cuda_devices
from ck_mlperf.models.convert import convert
from ck_mlperf.models.recipe import load_model_recipe
from ck_mlperf.tensorrt.api import find_version
from ck_mlperf.tensorrt.build import build_plan
from ck_mlperf.tensorrt.request import BuildRequest

HERE = Path(__file__).resolve().parent
SRC = str(HERE.parents[1] / "src")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("gpu")


@pytest.fixture(scope="session", autouse=True)
def flavour() -> str:
    """TensorRT that runs on this machine's GPU: its name."""
    try:
        list_cuda_devices()
    except UserError as error:
        pytest.skip(f"NOT RUN: needs an NVIDIA GPU: {error}")
    pytest.importorskip("pycuda.driver", reason="NOT RUN: needs pycuda")
    if find_version("tensorrt") is None:
        pytest.skip("NOT RUN: needs TensorRT")
    return "tensorrt"


@pytest.fixture(scope="session")
def network(repository: Path) -> Path:
    return repository / "package" / "model-onnx-digits" / "digits.onnx"


@pytest.fixture(scope="session")
def make_digits(
    repository: Path, network: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """make_digits('test'): the folder of preprocessed images; 'train' is for calibration."""

    def make(split: str) -> Path:
        folder = tmp_path_factory.mktemp(split)
        script = repository / "package" / "dataset-digits" / "make_digits.py"
        subprocess.run(
            [sys.executable, script, folder / "images", "--split", split, "--count", "500"],
            env=os.environ | {"PYTHONPATH": SRC},
            check=True,
        )
        recipe = load_model_recipe(network)
        preprocess(folder / "images", folder / "set", recipe.image, dataset="digits")
        return folder / "set"

    return make


@pytest.fixture(scope="session")
def digits(make_digits: Callable[[str], Path]) -> Path:
    """500 images that the network was not trained on."""
    return make_digits("test")


@pytest.fixture(scope="session")
def calibration(make_digits: Callable[[str], Path]) -> Path:
    return make_digits("train")


@pytest.fixture(scope="session")
def converted(
    network: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """converted('int8'): the network in the types of a precision, ready for a plan."""
    made: dict[str, Path] = {}

    def convert_once(precision: str) -> Path:
        kind = "fp32" if precision == "tf32" else precision
        if kind not in made:
            path = made[kind] = tmp_path_factory.mktemp("onnx") / f"{kind}.onnx"
            folder = calibration if kind == "int8" else None
            convert(network, path, kind, "native", calibration=folder)
        return made[kind]

    return convert_once


@pytest.fixture(scope="session")
def plans(
    converted: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, flavour: str
) -> Callable[..., Path]:
    """plans('int8', 32, input='uint8'): a plan, built once."""
    folder = tmp_path_factory.mktemp("plans")

    def build(precision: str, max_batch: int = 32, input: str = "uint8") -> Path:
        output = folder / f"{precision}-{input}-{max_batch}.plan"
        model = converted(precision)
        request = BuildRequest(
            model, output, precision, max_batch, flavour=flavour, input=input,
            timings=folder, builder_level=0,
        )  # fmt: skip
        build_plan(request)
        return output

    return build


@pytest.fixture
def run_once(digits: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """run_once(plan, CK_LOADGEN_SCENARIO='Server', ...): a LoadGen test in a process of its own."""

    numbers = itertools.count()

    def start(plan: Path, **variables: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name[:3] != "CK_"}
        environment |= variables | {"PYTHONPATH": os.pathsep.join([SRC, *sys.path])}
        logs = tmp_path / str(next(numbers))
        return subprocess.Popen(
            [sys.executable, HERE / "run_once.py", plan, digits, logs],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run_test(run_once: Callable[..., subprocess.Popen[str]]) -> Callable[..., dict]:
    """The same, awaited; what it printed, parsed."""

    def run(plan: Path, **variables: str) -> dict:
        process = run_once(plan, **variables)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        result: dict = json.loads(stdout.splitlines()[-1])
        return result

    return run
