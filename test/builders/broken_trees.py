"""Trees of submissions with something wrong in each: what the official checker is asked about.

A tree is made of one of BASES, which the product writes from altered logs, by one change.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .submission import EDGE, set_value, write_tree

BASES: dict[str, dict[str, Any]] = {
    "closed": {},
    "open": {"division": "open"},
    "closed with Server": {"scenarios": (*EDGE, "Server"), "system_type": "datacenter,edge"},
    "open with Server": {
        "division": "open",
        "scenarios": (*EDGE, "Server"),
        "system_type": "datacenter",
    },
    "closed, inferred": {"scenarios": ("SingleStream",), "infer": ("MultiStream", "Offline")},
}

PERFORMANCE = "performance/run_1/mlperf_log_detail.txt"
ACCURACY = "accuracy/mlperf_log_detail.txt"
ANSWERS = "accuracy/mlperf_log_accuracy.json"


class Tree(NamedTuple):
    """A copy of a base, to be broken."""

    root: Path
    """Has closed/ or open/."""

    @property
    def submitter(self) -> Path:
        (division,) = self.root.iterdir()
        return division / "Acme"

    @property
    def system(self) -> Path:
        (path,) = (self.submitter / "systems").glob("*.json")
        return path

    @property
    def results(self) -> Path:
        return self.submitter / "results" / self.system.stem

    def at(self, name: str) -> Path:
        """Something in the benchmark's folder."""
        return self.results / "resnet50" / name

    def remove(self, path: Path | str) -> None:
        target = self.at(path) if isinstance(path, str) else path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    def write(self, path: Path | str, text: str) -> None:
        (self.at(path) if isinstance(path, str) else path).write_text(text)

    def set(self, name: str, key: str, value: Any) -> None:
        """Another value in a detail log."""
        path = self.at(name)
        path.write_bytes(set_value(path.read_bytes(), key, value))

    def drop(self, name: str, key: str) -> None:
        """A detail log without the lines of a key."""
        path = self.at(name)
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if b'"key": "%s"' % key.encode() not in line]
        assert len(kept) < len(lines), key
        path.write_bytes(b"".join(kept))

    def describe(self, path: Path | None = None, **changes: Any) -> None:
        """Other fields in the system's description, or in another JSON file; None: none."""
        path = path or self.system
        fields = json.loads(path.read_text()) | changes
        kept = {name: value for name, value in fields.items() if value is not None}
        path.write_text(json.dumps(kept))

    def measurements(self, **changes: Any) -> None:
        self.describe(self.at("Offline/measurements.json"), **changes)

    def rename_benchmark(self, name: str) -> None:
        (self.results / "resnet50").rename(self.results / name)

    def move(self, old: str, new: str) -> None:
        self.at(old).rename(self.at(new))


def add_error(tree: Tree, name: str) -> None:
    path = tree.at(name)
    content = path.read_bytes()
    first = content.splitlines()[0]
    event = json.loads(first.removeprefix(b":::MLLOG "))
    event["key"], event["value"] = "error_runtime", "Query took too long"
    event["metadata"]["is_error"] = True
    path.write_bytes(content + b":::MLLOG " + json.dumps(event).encode() + b"\n")


def make_test_inaccurate(tree: Tree, baseline: str | None, found: str = "60.0") -> None:
    """TEST01 with other answers, and the accuracies that it then wants."""
    tree.write("Offline/TEST01/verify_accuracy.txt", "TEST FAIL\n")
    if baseline is None:
        return
    folder = tree.at("Offline/TEST01/accuracy")
    (folder / "baseline_accuracy.txt").write_text(f"accuracy={baseline}%, good=1, total=1\n")
    (folder / "compliance_accuracy.txt").write_text(f"accuracy={found}%, good=1, total=1\n")


_Break = Callable[[Tree], object]

# By name: the base, and what is done to it.
BROKEN: dict[str, tuple[str, _Break]] = {
    "nothing, closed": ("closed", lambda t: None),
    "nothing, open": ("open", lambda t: None),
    "nothing, with Server": ("closed with Server", lambda t: None),
    "nothing, open datacenter": ("open with Server", lambda t: None),
    "nothing, inferred": ("closed, inferred", lambda t: None),
    # scenarios
    "no Offline": ("closed", lambda t: t.remove("Offline")),
    "only Offline": (
        "closed",
        lambda t: [t.remove(name) for name in ("SingleStream", "MultiStream")],
    ),
    "Server of an edge system": ("closed with Server", lambda t: t.describe(system_type="edge")),
    "no Server": ("closed with Server", lambda t: t.remove("Server")),
    "closed datacenter": ("closed with Server", lambda t: t.describe(system_type="datacenter")),
    "inferred, datacenter": (
        "open",
        lambda t: [
            t.describe(system_type="datacenter"),
            t.remove("Offline"),
            shutil.copytree(t.at("SingleStream"), t.at("Offline")),
        ],
    ),
    "inferred the other way": (
        "open",
        lambda t: [t.remove("SingleStream"), t.move("Offline", "SingleStream")],
    ),
    "inferred without an estimate": (
        "closed, inferred",
        lambda t: t.set(f"MultiStream/{PERFORMANCE}", "early_stopping_latency_ms", 0),
    ),
    "an unknown scenario": ("open", lambda t: t.move("Offline", "Batch")),
    "another name": ("closed", lambda t: t.rename_benchmark("digits")),
    "another name, open": ("open", lambda t: t.rename_benchmark("digits")),
    "another name, mapped": (
        "open",
        lambda t: [
            t.rename_benchmark("digits"),
            t.write(t.submitter / "model_mapping.json", '{"digits": "resnet"}'),
        ],
    ),
    # performance
    "no performance log": ("closed", lambda t: t.remove(f"Offline/{PERFORMANCE}")),
    "no accuracy log": ("closed", lambda t: t.remove(f"Offline/{ACCURACY}")),
    "no logs": (
        "closed",
        lambda t: [t.remove(f"Offline/{name}") for name in (PERFORMANCE, ACCURACY)],
    ),
    "a log of something else": ("closed", lambda t: t.write(f"Offline/{PERFORMANCE}", "hello\n")),
    "a damaged line": (
        "closed",
        lambda t: t.write(
            f"Offline/{PERFORMANCE}", t.at(f"Offline/{PERFORMANCE}").read_text() + ':::MLLOG {"key'
        ),
    ),
    "a log that is no text": (
        "closed",
        lambda t: t.at(f"Offline/TEST01/{PERFORMANCE}").write_bytes(b":::MLLOG \xff\n"),
    ),
    "an empty log": ("closed", lambda t: t.write(f"Offline/{PERFORMANCE}", "")),
    "few images in memory": (
        "closed",
        lambda t: t.set(f"Offline/{PERFORMANCE}", "effective_performance_sample_count", 500),
    ),
    "no images in memory": (
        "closed",
        lambda t: t.drop(f"Offline/{PERFORMANCE}", "effective_performance_sample_count"),
    ),
    "a seed": ("closed", lambda t: t.set(f"Offline/{PERFORMANCE}", "effective_qsl_rng_seed", 1)),
    "all seeds, open": (
        "open",
        lambda t: [
            t.set(f"SingleStream/{PERFORMANCE}", f"effective_{name}_rng_seed", 0)
            for name in ("qsl", "sample_index", "schedule")
        ],
    ),
    "a short run": (
        "closed",
        lambda t: t.set(f"MultiStream/{PERFORMANCE}", "effective_min_duration_ms", 60_000),
    ),
    "a short run, open": (
        "open",
        lambda t: t.set(f"Offline/{PERFORMANCE}", "effective_min_duration_ms", 2000),
    ),
    "no duration": (
        "closed",
        lambda t: t.drop(f"Offline/{PERFORMANCE}", "effective_min_duration_ms"),
    ),
    "no early stopping": (
        "closed",
        lambda t: t.set(f"SingleStream/{PERFORMANCE}", "early_stopping_met", False),
    ),
    "a latency bound of 20 ms": (
        "closed with Server",
        lambda t: t.set(f"Server/{PERFORMANCE}", "effective_target_latency_ns", 20_000_000),
    ),
    "few samples": (
        "closed",
        lambda t: t.set(f"Offline/{PERFORMANCE}", "effective_samples_per_query", 24_000),
    ),
    "few samples, open": (
        "open",
        lambda t: t.set(f"Offline/{PERFORMANCE}", "effective_samples_per_query", 24_000),
    ),
    "no queries asked for": (
        "closed",
        lambda t: t.set(f"Offline/{PERFORMANCE}", "effective_min_query_count", 0),
    ),
    "a result of 0": (
        "closed",
        lambda t: t.set(f"Offline/{PERFORMANCE}", "result_samples_per_second", 0),
    ),
    "no result": (
        "closed",
        lambda t: t.drop(f"Offline/{PERFORMANCE}", "result_samples_per_second"),
    ),
    "no scenario in the log": (
        "open",
        lambda t: t.drop(f"Offline/{PERFORMANCE}", "effective_scenario"),
    ),
    # accuracy
    "errors in the accuracy run": ("closed", lambda t: add_error(t, f"Offline/{ACCURACY}")),
    "500 images": (
        "open",
        lambda t: t.set(f"Offline/{ACCURACY}", "effective_accuracy_sample_count", 500),
    ),
    "no number of images": (
        "closed",
        lambda t: [
            t.drop(f"Offline/{ACCURACY}", name)
            for name in ("effective_accuracy_sample_count", "qsl_reported_total_count")
        ],
    ),
    "low accuracy": (
        "closed",
        lambda t: t.write(
            "Offline/accuracy/accuracy.txt", "accuracy=75.200%, good=376, total=500\n\nhash=ab12\n"
        ),
    ),
    "low accuracy, open": (
        "open",
        lambda t: t.write(
            "Offline/accuracy/accuracy.txt", "accuracy=75.200%, good=376, total=500\n\nhash=ab12\n"
        ),
    ),
    "no accuracy in accuracy.txt": (
        "closed",
        lambda t: t.write("Offline/accuracy/accuracy.txt", "top1=76.4\n\nhash=ab12\n"),
    ),
    "no hash": (
        "closed",
        lambda t: t.write("Offline/accuracy/accuracy.txt", "accuracy=76.456%, good=1, total=1\n"),
    ),
    "no accuracy.txt": ("open", lambda t: t.remove("Offline/accuracy/accuracy.txt")),
    "no number in accuracy.txt": (
        "open",
        lambda t: t.write("Offline/accuracy/accuracy.txt", "accuracy=76.4.5%\n\nhash=ab12\n"),
    ),
    "no answers": ("closed", lambda t: t.remove(f"Offline/{ANSWERS}")),
    "answers not truncated": ("closed", lambda t: t.write(f"Offline/{ANSWERS}", "0" * 20_000)),
    # the system
    "no description": ("closed", lambda t: t.remove(t.system)),
    "a description that is no JSON": ("closed", lambda t: t.write(t.system, "{")),
    "a description that is a list": ("closed", lambda t: t.write(t.system, "[]")),
    "an unknown type": ("closed", lambda t: t.describe(system_type="laptop")),
    "an unknown type, open": ("open", lambda t: t.describe(system_type="laptop")),
    "an unknown status": ("closed", lambda t: t.describe(status="maybe")),
    "no status": ("closed", lambda t: t.describe(status=None)),
    "another submitter": ("closed", lambda t: t.describe(submitter="Other")),
    "no submitter": ("open", lambda t: t.describe(submitter=None)),
    "another division": ("closed", lambda t: t.describe(division="open")),
    "no field": ("closed", lambda t: t.describe(cooling=None, host_processor_caches=None)),
    "an empty field": ("closed", lambda t: t.describe(host_networking="")),
    "0 accelerators as a number": ("open", lambda t: t.describe(accelerators_per_node=0)),
    "N/A accelerators": ("closed", lambda t: t.describe(accelerators_per_node="N/A")),
    "notes as a list": ("closed", lambda t: t.describe(sw_notes=["a"])),
    "a network system": ("closed", lambda t: t.describe(is_network="true")),
    "a network system, open": ("open", lambda t: t.describe(is_network="true")),
    "is_network is no text": ("closed", lambda t: t.describe(is_network=False)),
    # measurements
    "no measurements": ("closed", lambda t: t.remove("Offline/measurements.json")),
    "measurements that are no JSON": (
        "closed",
        lambda t: t.write("Offline/measurements.json", "retraining: no"),
    ),
    "no field of measurements": ("closed", lambda t: t.measurements(retraining=None)),
    "an empty field of measurements": ("open", lambda t: t.measurements(weight_data_types="")),
    "no user.conf": ("closed", lambda t: t.remove("Offline/user.conf")),
    "an empty README.md": ("closed", lambda t: t.write("Offline/README.md", "")),
    "no src": ("closed", lambda t: t.remove(t.submitter / "src")),
    "no results": ("open", lambda t: t.remove(t.submitter / "results")),
    "a mapping that is no JSON": (
        "open",
        lambda t: t.write(t.submitter / "model_mapping.json", "digits: resnet"),
    ),
    # compliance
    "no TEST01": ("closed", lambda t: t.remove("Offline/TEST01")),
    "no TEST04": ("closed", lambda t: t.remove("SingleStream/TEST04")),
    "no TEST04, open": ("open", lambda t: None),
    "no verify_accuracy.txt": (
        "closed",
        lambda t: t.remove("Offline/TEST01/verify_accuracy.txt"),
    ),
    "no verify_performance.txt": (
        "closed",
        lambda t: t.remove("Offline/TEST04/verify_performance.txt"),
    ),
    "a failed test of speed": (
        "closed",
        lambda t: t.write("Offline/TEST04/verify_performance.txt", "TEST FAIL\n"),
    ),
    "other answers": ("closed", lambda t: make_test_inaccurate(t, None)),
    "other answers, no files": (
        "closed",
        lambda t: [make_test_inaccurate(t, None), t.remove("Offline/TEST01/accuracy")],
    ),
    "other answers, as accurate": ("closed", lambda t: make_test_inaccurate(t, "76.4", "76.0")),
    "other answers, less accurate": ("closed", lambda t: make_test_inaccurate(t, "76.4")),
    "other answers, no accuracy": ("closed", lambda t: make_test_inaccurate(t, "none")),
    "no log of a test": ("closed", lambda t: t.remove(f"Offline/TEST01/{PERFORMANCE}")),
    "no logs of a test": ("closed", lambda t: t.remove("Offline/TEST04/performance")),
    "a file too many": (
        "closed",
        lambda t: t.write("Offline/TEST01/performance/run_1/notes.txt", "x"),
    ),
    "a short test": (
        "closed",
        lambda t: t.set(f"Offline/TEST01/{PERFORMANCE}", "effective_min_duration_ms", 1000),
    ),
    "another seed in a test": (
        "closed",
        lambda t: t.set(f"Offline/TEST04/{PERFORMANCE}", "effective_schedule_rng_seed", 3),
    ),
}


class Trees:
    """Makes the trees; each base is written once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def make(self, name: str) -> Path:
        """The root of a tree of BROKEN, by name: a folder of its own."""
        base, change = BROKEN[name]
        written = self._folder / base
        if not written.exists():
            write_tree(written, self._folder / f"{base} runs", **BASES[base])
        self._count += 1
        root = self._folder / f"broken-{self._count}"
        shutil.copytree(written, root)
        change(Tree(root))
        return root
