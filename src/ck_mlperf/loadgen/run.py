"""One LoadGen test, from settings to log files."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines import Engine
from ck_mlperf.loadgen.estimate import needs_estimate, set_estimate
from ck_mlperf.loadgen.harness.batching import (
    BatchPolicy,
    DeadlineBatches,
    EagerBatches,
    list_sizes,
)
from ck_mlperf.loadgen.settings import RunSettings, refuse_several_devices, resolve_settings
from ck_mlperf.loadgen.user_conf import MODEL
from ck_mlperf.machine.conditions import Watch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.harness.interface import Interface
    from ck_mlperf.loadgen.harness.sut import SystemUnderTest

LOG_NAMES = ("mlperf_log_accuracy.json", "mlperf_log_detail.txt", "mlperf_log_summary.txt")
_UNFINISHED = ".loadgen-unfinished-"
_AUDIT_CONFIG = Path("audit.config")
# LoadGen's memory for a query that it generates ahead, its metadata and promise, rounded up from
# measurements.
_BYTES_PER_QUERY = 250
_UNPACED_QPS = 1e9


@dataclass(frozen=True)
class DeviceCounts:
    """What one engine answered in a test: in its performance part, where it has one."""

    device: str
    """As the engine names it."""
    samples: int
    batches: int


@dataclass(frozen=True)
class RunOutcome:
    """What a finished test leaves."""

    settings: RunSettings
    """As asked for, with dataset_size, batch_size and buffer_size resolved to numbers."""
    loadgen_settings: dict[str, int | float | str | bool]
    """Every attribute of LoadGen's TestSettings in force, enumerations by name."""
    top5: NDArray[np.int32] | None
    """int32 [dataset_size, 5] labels by sample index, best first, -1 where not seen; None unless
    accuracy was asked for and the engine gives the five best."""
    log_dir: Path
    """Folder that holds the LOG_NAMES. The accuracy log has each label as an int32."""
    wall_s: float
    """Duration of LoadGen's StartTest in seconds, preparing the engines and loading included."""
    devices: tuple[DeviceCounts, ...]
    """One for each engine, in their order."""
    conditions: dict[str, Any]
    """What else the machine did, as in the record."""
    interface: str = "wheel"
    """LoadGen's interface that was used, as the record has it."""


def run_test(
    settings: RunSettings,
    engines: Engine | Sequence[Engine],
    images: NDArray[np.uint8],
    log_dir: Path,
    interface: Interface | None = None,
) -> RunOutcome:
    """Run the test that `settings` ask for on open `engines`; leave LoadGen's logs in `log_dir`.

    engines: one, or one for each device, all alike but for their speed. Several share the samples
    of a query, batch by batch as each becomes free; each has all the images.
    images: uint8 [n, side, side, 3], by sample index; a memory map is read as LoadGen asks for it.
    interface: to LoadGen; None: its Python module.

    One test per process: LoadGen keeps global state. Raises UserError where the settings do not
    fit (`resolve_settings` says so before the engine is opened), several engines in SingleStream
    included; whatever an engine raises; KeyboardInterrupt. None of these leaves a log behind, and
    logs of an earlier test go first.
    """
    remove_logs(log_dir)
    if interface is None:
        from ck_mlperf.loadgen.harness.wheel import WheelInterface

        interface = WheelInterface()
    if isinstance(engines, Engine):
        engines = [engines]
    settings = resolve_settings(settings, len(images), engines[0].max_batch)
    refuse_several_devices(settings.scenario, len(engines))
    _refuse_audit_config()
    loadgen_settings = build_loadgen_settings(settings)
    sizes = _list_batch_sizes(loadgen_settings, settings, len(engines))
    if needs_estimate(settings):
        set_estimate(loadgen_settings, settings, engines, images, interface.most_samples_per_s)
    if settings.scenario == "Server":
        _tune_server(loadgen_settings, settings)
    _check_memory(loadgen_settings, settings, interface.bytes_per_sample)
    unfinished_dir = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=log_dir))
    try:
        with Watch(e.cuda_device for e in engines if e.cuda_device is not None) as watch:
            system = _make_system(settings, loadgen_settings, engines, sizes, images, interface)
            wall_s = _run_loadgen(system, settings, loadgen_settings, interface, unfinished_dir)
        _keep_logs(unfinished_dir, log_dir)
    finally:
        shutil.rmtree(unfinished_dir)
    in_force = _list_settings(loadgen_settings)
    devices = _count_devices(system, settings)
    return RunOutcome(
        settings,
        in_force,
        system.top5,
        log_dir,
        wall_s,
        devices,
        watch.conditions,
        interface.name,
    )


def remove_logs(log_dir: Path) -> None:
    """Remove LoadGen's logs from `log_dir`, those of a killed test too; make the folder."""
    if log_dir.exists() and not log_dir.is_dir():
        raise UserError(f"{log_dir}: a file, want a folder for the logs")
    log_dir.mkdir(parents=True, exist_ok=True)
    for path in log_dir.glob("mlperf_log_*"):
        path.unlink()
    for path in log_dir.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path)


def build_loadgen_settings(settings: RunSettings) -> Any:
    """LoadGen's TestSettings: its mlperf.conf, then user.conf, then the variables.

    settings: resolved. Does not use LoadGen's conf_type 1, which reads mlperf.conf only the first
    time in a process.
    """
    import mlperf_loadgen as lg

    test = lg.TestSettings()
    test.FromConfig("", MODEL, settings.scenario, 0)
    if settings.conf_file is not None and test.FromConfig(
        str(settings.conf_file), MODEL, settings.scenario, 2
    ):
        raise UserError(f"{settings.conf_file}: LoadGen cannot read it")
    test.scenario = getattr(lg.TestScenario, settings.scenario)
    test.mode = getattr(lg.TestMode, settings.mode)
    test.performance_sample_count_override = settings.buffer_size
    if settings.multistreamness is not None:
        test.multi_stream_samples_per_query = settings.multistreamness
    if settings.count_override is not None:
        test.min_query_count = settings.count_override  # Offline: LoadGen takes it for samples
        test.min_duration_ms = 0
    if settings.duration_s is not None:
        test.min_duration_ms = round(settings.duration_s * 1000)
    if settings.target_qps is not None:
        test.server_target_qps = test.offline_expected_qps = settings.target_qps
    if settings.target_latency_ms is not None:
        latency_ns = settings.target_latency_ms * 1e6
        test.server_target_latency_ns = round(latency_ns)
        test.single_stream_expected_latency_ns = latency_ns
        test.multi_stream_expected_latency_ns = latency_ns
    return test


def _list_batch_sizes(test: Any, settings: RunSettings, devices: int) -> list[int]:
    """The sizes of the batches that will come, rising; rests of Offline's query are left out."""
    assert settings.batch_size is not None
    if settings.scenario == "SingleStream":
        return [1]
    if settings.scenario == "Server":
        return list_sizes(settings.batch_size)
    if settings.scenario == "Offline":
        return [settings.batch_size]
    samples = test.multi_stream_samples_per_query
    size = min(settings.batch_size, math.ceil(samples / devices))
    return sorted({size, samples % size or size})


def _tune_server(test: Any, settings: RunSettings) -> None:
    if "coalesce_queries" not in settings.conf:
        test.server_coalesce_queries = True
    if settings.mode == "AccuracyOnly":
        # LoadGen keeps to the schedule here too: 500 images at its 1 query/s take 8 minutes.
        test.server_target_qps = _UNPACED_QPS
    elif not test.server_max_async_queries:
        # Without a limit a system that is too slow queues up for the whole duration, and one that
        # failed cannot end the test. With this many queries open, twice the share that may be late
        # is late: the limit never ends a test that could have been valid.
        rate = test.server_target_qps
        queries = max(test.min_query_count, rate * test.min_duration_ms / 1000)
        late_share = 1 - test.server_target_latency_percentile
        limit = max(rate, 2 * late_share * queries)
        if settings.mode == "FindPeakPerformance":
            limit *= 100  # LoadGen multiplies the rate as it searches, and not the limit
        test.server_max_async_queries = min(math.ceil(limit), 2**31 - 1)


def _list_settings(test: Any) -> dict[str, int | float | str | bool]:
    values = {name: getattr(test, name) for name in dir(test) if not name.startswith("_")}
    return {
        name: value if isinstance(value, (int, float)) else value.name
        for name, value in values.items()
        if not callable(value)
    }


def _refuse_audit_config() -> None:
    if _AUDIT_CONFIG.exists():
        raise UserError(
            f"{_AUDIT_CONFIG.absolute()}: LoadGen would let this file override every setting. "
            "Move it away (a compliance test needs a LoadGen run of its own)"
        )


def _check_memory(test: Any, settings: RunSettings, bytes_per_sample: int) -> None:
    """LoadGen generates all queries ahead; refuse what this machine cannot hold."""
    if settings.mode == "AccuracyOnly":
        return
    duration_s = test.min_duration_ms / 1000
    samples_per_query = 1
    if settings.scenario == "Offline":
        queries = 1.0
        samples_per_query = max(test.min_query_count, 1.1 * duration_s * test.offline_expected_qps)
    elif settings.scenario == "Server":
        queries = max(test.min_query_count, duration_s * test.server_target_qps)
    else:
        latency_ns = test.single_stream_expected_latency_ns
        if settings.scenario == "MultiStream":
            latency_ns = test.multi_stream_expected_latency_ns
            samples_per_query = test.multi_stream_samples_per_query
        queries = max(test.min_query_count, 2 * duration_s * 1e9 / latency_ns)
    needed = queries * (_BYTES_PER_QUERY + samples_per_query * bytes_per_sample)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise UserError(
            f"LoadGen would make {queries * samples_per_query:.3g} samples ahead, which takes "
            f"{needed / 1e9:.0f} GB; this machine has {memory / 1e9:.0f}. Lower the duration, the "
            "count or the target rate, or raise the target latency"
        )


def _run_loadgen(
    system: SystemUnderTest,
    settings: RunSettings,
    loadgen_settings: Any,
    interface: Interface,
    log_dir: Path,
) -> float:
    """Run the test; its duration in seconds. Raises what ended it."""
    total, loadable = settings.dataset_size, settings.buffer_size
    assert total is not None
    started = time.perf_counter()
    _run_interruptibly(
        lambda: interface.start(system, total, loadable, loadgen_settings, log_dir), system
    )
    wall_s = time.perf_counter() - started
    system.close()
    if system.error is not None:
        raise system.error
    return wall_s


def _make_system(
    settings: RunSettings,
    loadgen_settings: Any,
    engines: Sequence[Engine],
    sizes: Sequence[int],
    images: NDArray[np.uint8],
    interface: Interface,
) -> SystemUnderTest:
    import numpy as np

    from ck_mlperf.loadgen.harness.sut import QueuedSystem, SystemUnderTest

    assert settings.batch_size is not None
    assert settings.dataset_size is not None
    top5, respond = None, interface.make_responses
    if engines[0].gives_top5 and settings.mode in ("AccuracyOnly", "SubmissionRun"):
        top5 = np.full((settings.dataset_size, 5), -1, np.int32)
    policies: Sequence[BatchPolicy]
    is_server = settings.scenario == "Server"
    if is_server:
        bound_s = loadgen_settings.server_target_latency_ns / 1e9
        policies = [DeadlineBatches(sizes, bound_s, engine.at_once) for engine in engines]
    elif len(engines) > 1:
        policies = [EagerBatches(settings.batch_size, len(engines)) for _ in engines]
    else:
        return SystemUnderTest(engines, images, settings.batch_size, top5, respond, sizes)
    return QueuedSystem(
        engines, images, settings.batch_size, top5, policies, not is_server, respond, sizes
    )


def _count_devices(system: SystemUnderTest, settings: RunSettings) -> tuple[DeviceCounts, ...]:
    counts = []
    for runner in system.runners:
        # A SubmissionRun's performance part comes last, with a set of its own.
        tallies = runner.tallies if settings.mode == "AccuracyOnly" else runner.tallies[-1:]
        singles = sum(tally.singles for tally in tallies)
        samples = sum(tally.samples for tally in tallies)
        batches = sum(tally.batches for tally in tallies)
        counts.append(DeviceCounts(runner.engine.device, singles + samples, singles + batches))
    return tuple(counts)


def _run_interruptibly(start: Callable[[], None], system: SystemUnderTest) -> None:
    """Run `start` on a thread of its own, so that Ctrl-C arrives here and never in a callback."""
    done = threading.Event()

    def run() -> None:
        try:
            start()
        except BaseException as error:
            system.fail(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name="loadgen")
    thread.start()
    # Not thread.join(): up to Python 3.12, one that Ctrl-C interrupts takes the thread for ended.
    while not done.is_set():
        try:
            done.wait()
        except KeyboardInterrupt as error:
            system.fail(error)
    thread.join()


def _keep_logs(unfinished_dir: Path, log_dir: Path) -> None:
    """Move whole logs to where they are looked for, the summary last."""
    for name in LOG_NAMES:
        path = unfinished_dir / name
        content = path.read_bytes()
        # LoadGen does not notice a full disk.
        if not content.endswith(b"\n") or (path.suffix == ".json" and content[-3:] != b"\n]\n"):
            raise UserError(f"{log_dir / name}: LoadGen left it cut off. Is the disk full?")
    for name in LOG_NAMES:
        (unfinished_dir / name).replace(log_dir / name)
