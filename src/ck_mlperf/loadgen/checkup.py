"""The check of `ck doctor loadgen --gpu`: its order, and its report to paste into an issue."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.checkup_steps import LEAST_AGREEMENT, Case, Steps
from ck_mlperf.machine.environment import describe_environment
from ck_mlperf.machine.gpus import NoGpuError, find_cuda_version
from ck_mlperf.tensorrt.libraries import list_libraries


@dataclass(frozen=True)
class Step:
    """A step of the check and how it went. detail: what was measured, or why it failed."""

    name: str
    passed: bool
    detail: str


class Checkup:
    """Does the steps one by one, prints each as it ends, and keeps them for the exit code.

    has_gpu: False once a step has said that there is none: the others do not say it again.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.has_gpu = True

    def check(self, name: str, measure: Callable[[], str]) -> bool:
        """Run one step; what it raises is its result, a defect's type with it."""
        try:
            step = Step(name, True, measure())
        except UserError as error:
            self.has_gpu = self.has_gpu and not isinstance(error, NoGpuError)
            step = Step(name, False, str(error))
        except Exception as error:  # whatever a GPU or its libraries come up with is the finding
            step = Step(name, False, f"{type(error).__name__}: {error}")
        self.steps.append(step)
        self._print(step.name, "ok" if step.passed else "FAILED", step.detail)
        return step.passed

    def skip(self, name: str, reason: str) -> None:
        """A step that is not done, for a reason that is no failure of its own."""
        self._print(name, "not done", reason)

    def check_on_gpu(self, name: str, measure: Callable[[], str]) -> bool:
        """`check`, where there is a GPU as far as is known."""
        if self.has_gpu:
            return self.check(name, measure)
        self.skip(name, "needs a GPU")
        return False

    @staticmethod
    def _print(name: str, result: str, detail: str) -> None:
        text = detail.strip().replace("\n", "<br>").replace("|", "\\|")
        print(f"| {name} | {result} | {text} |", flush=True)


def examine(steps: Steps) -> bool:
    """Do all steps and print the report. Whether each passed."""
    print_environment()
    print("| step | result | details |\n|---|---|---|")
    checkup = Checkup()
    checkup.check("GPU and driver", steps.describe_gpu)
    checkup.check_on_gpu("copies into the device", steps.measure_copies)
    with tempfile.TemporaryDirectory(prefix="ck-doctor-") as folder:
        cases = [Case(precision, Path(folder) / precision) for precision in LEAST_AGREEMENT]
        with steps.builder:  # it ends before plans are run: its memory is on the GPU
            built = build_plans(checkup, steps, cases)
        for case in built:
            checkup.check_on_gpu(f"run the plan, {case.precision}", partial(steps.run_plan, case))
    failed = [step.name for step in checkup.steps if not step.passed]
    print()
    print_libraries(steps.builder.libraries)
    if failed:
        print(f"FAILED: {', '.join(failed)}. Please paste all of this into an issue.")
    else:
        print(
            "All steps passed: this GPU runs plans. Please paste this into an issue all the same."
        )
    return not failed


def build_plans(checkup: Checkup, steps: Steps, cases: Sequence[Case]) -> list[Case]:
    """Convert and build every precision, as far as it goes. Returns those that have a plan.

    A file is converted, on the CPU, while the plan before it is built on the GPU.
    """
    built = []
    # TensorRT for RTX builds without a GPU.
    check_build = checkup.check_on_gpu if steps.flavour == "tensorrt" else checkup.check
    with ThreadPoolExecutor(1) as pool:
        conversions = {}
        for case in cases:
            case.folder.mkdir()
            if case.precision != "int8" or steps.calibration is not None:
                conversions[case] = pool.submit(steps.convert, case)
        for case in cases:
            name = f"convert the ONNX file, {case.precision}"
            if case not in conversions:
                checkup.skip(name, "no images to calibrate with were given")
            elif checkup.check(name, conversions[case].result) and check_build(
                f"build the plan, {case.precision}", partial(steps.build, case)
            ):
                built.append(case)
    return built


def print_environment() -> None:
    """What the machine and its libraries are, as a list."""
    environment = describe_environment(Path(__file__).resolve().parents[3])
    gpus = environment["gpus"]
    names = [f"{gpu['name']} (driver {gpu['driver']})" for gpu in gpus]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    print("## ck doctor loadgen --gpu\n")
    print(f"- GPUs by NVML: {'; '.join(names) or 'none'}")
    print(f"- system: {environment['os']}, {environment['python']}")
    print(f"- packages: {packages}\n")


def print_libraries(loaded: set[str]) -> None:
    """NVIDIA's libraries that this process or `loaded` has in use; distributions that have some."""
    listed = ", ".join(sorted(loaded.union(list_libraries())))
    cuda = find_cuda_version()
    versions = {
        (distribution.metadata["Name"] or "").replace("_", "-"): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    names = [
        f"{name} {versions[name]}"
        for name in sorted(versions)
        if name.startswith(("nvidia-", "tensorrt", "cuda-")) and not name.endswith("-stubs")
    ]
    print(f"- CUDA of the driver: {'none' if cuda is None else f'{cuda[0]}.{cuda[1]}'}")
    print(f"- NVIDIA's libraries in use: {listed or 'none'}")
    print(f"- distributions with such: {', '.join(names) or 'none'}\n")
