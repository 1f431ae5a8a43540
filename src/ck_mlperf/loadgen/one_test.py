"""One LoadGen test, from settings to log files."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import MOST_LOG_BYTES, read_regular
from ck_mlperf.loadgen.compliance import AUDIT_CONFIG, write_audit_config
from ck_mlperf.loadgen.engines import Engine
from ck_mlperf.loadgen.engines.base import refuse_exit
from ck_mlperf.loadgen.estimate import needs_estimate, set_estimate
from ck_mlperf.loadgen.harness.batching import (
    BatchPolicy,
    DeadlineBatches,
    EagerBatches,
    list_sizes,
)
from ck_mlperf.loadgen.job import LOG_NAMES, UNFINISHED, USER_CONF
from ck_mlperf.loadgen.loadgen_settings import (
    build_loadgen_settings,
    check_memory,
    list_values,
    tune_server,
)
from ck_mlperf.loadgen.resolve import ResolvedSettings, resolve_settings
from ck_mlperf.loadgen.settings import RunSettings, refuse_several_devices
from ck_mlperf.loadgen.time_limit import TimeLimit, allow_silence
from ck_mlperf.machine.conditions import Watch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.harness.interface import Interface
    from ck_mlperf.loadgen.harness.sut import CheckImages, SystemUnderTest


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

    settings: ResolvedSettings
    loadgen_settings: dict[str, int | float | str | bool]
    """Every attribute of LoadGen's TestSettings in force, enumerations by name."""
    top5: NDArray[np.int32] | None
    """int32 [dataset_size, 5] labels by sample index, best first, -1 where not seen; None unless
    accuracy was asked for and the engine gives the five best."""
    log_dir: Path
    """Folder that holds the LOG_NAMES, and USER_CONF where there is one. The accuracy log has each
    label as an int32."""
    wall_s: float
    """Duration of LoadGen's StartTest in seconds, preparing the engines and loading included."""
    devices: tuple[DeviceCounts, ...]
    """One for each engine, in their order."""
    conditions: dict[str, Any]
    """What else the machine did, as in the record."""
    interface: str = "wheel"
    """LoadGen's interface that was used, as the record has it."""


@refuse_exit()
def run_test(
    settings: RunSettings,
    engines: Engine | Sequence[Engine],
    images: NDArray[np.uint8],
    log_dir: Path,
    interface: Interface | None = None,
    limit: TimeLimit | None = None,
    check_images: CheckImages = contextlib.nullcontext,
) -> RunOutcome:
    """Run the test that `settings` ask for on open `engines`; leave LoadGen's logs in `log_dir`.

    engines: one, or one for each device, which may differ in speed only. Several share the samples
    of a query: each takes the next batch when it is free. Each loads all the images.
    images: uint8 [n, side, side, 3], by sample index; a memory map is read as LoadGen asks for it.
    interface: to LoadGen; None: its Python module.
    check_images: around each loading of images, which is not timed.
    limit: one that began before, such as with the opening of the engines; None: the test's own.

    One test per process: LoadGen keeps global state. Logs of an earlier test are removed first.
    Raises UserError where the settings do not fit (`resolve_settings` says so before an engine is
    opened) and for several engines in SingleStream; whatever an engine raises, but EngineError
    in place of SystemExit; KeyboardInterrupt. None of these leaves a log behind.
    """
    remove_logs(log_dir)
    if interface is None:
        from ck_mlperf.loadgen.harness.wheel import WheelInterface

        interface = WheelInterface()
    if isinstance(engines, Engine):
        engines = [engines]
    resolved = resolve_settings(settings, len(images), engines[0].max_batch)
    refuse_several_devices(settings.scenario, len(engines))
    _refuse_audit_config()
    unfinished_dir = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=log_dir))
    try:
        test = _build_settings(resolved, unfinished_dir)
        sizes = _list_batch_sizes(test, resolved, len(engines))
        with contextlib.ExitStack() as limited:
            if limit is None:
                silence_s = allow_silence(resolved.batch_size)
                limit = TimeLimit(settings.timeout_s, silence_s, lambda: remove_logs(log_dir))
                limited.enter_context(limit)
            if needs_estimate(settings):
                set_estimate(test, resolved, engines, images, interface.most_samples_per_s)
            if settings.scenario == "Server":
                tune_server(test, settings)
            check_memory(test, settings, interface.bytes_per_sample)
            with Watch(e.cuda_device for e in engines if e.cuda_device is not None) as watch:
                system = _make_system(test, resolved, engines, sizes, images, interface)
                system.check_images = check_images
                qps = test.server_target_qps if settings.scenario == "Server" else None
                limit.follow(system.count_answers, system.fail, qps)
                wall_s = _run_loadgen(test, resolved, system, interface, unfinished_dir)
        _keep_logs(unfinished_dir, log_dir)
    finally:
        shutil.rmtree(unfinished_dir)
    return RunOutcome(
        settings=resolved,
        loadgen_settings=list_values(test),
        top5=system.top5,
        log_dir=log_dir,
        wall_s=wall_s,
        devices=_count_devices(system, resolved),
        conditions=watch.conditions,
        interface=interface.name,
    )


def remove_logs(log_dir: Path) -> None:
    """Remove LoadGen's logs from `log_dir`, those of a killed test too; make the folder."""
    if log_dir.exists() and not log_dir.is_dir():
        raise UserError(f"{log_dir}: a file, want a folder for the logs")
    log_dir.mkdir(parents=True, exist_ok=True)
    for path in log_dir.glob("mlperf_log_*"):
        path.unlink()
    for path in log_dir.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path)


def _build_settings(settings: ResolvedSettings, folder: Path) -> Any:
    """LoadGen's TestSettings. Leaves in `folder` the user.conf and audit.config that are in force.

    A copy of user.conf, because the user's own may change during the test.
    """
    conf_file, audit_config = settings.conf_file, None
    if conf_file is not None:
        conf_file = shutil.copyfile(conf_file, folder / USER_CONF)
    if settings.compliance is not None:
        audit_config = write_audit_config(settings.compliance, folder)
    return build_loadgen_settings(replace(settings, conf_file=conf_file), audit_config)


def _list_batch_sizes(test: Any, settings: ResolvedSettings, devices: int) -> list[int]:
    """The sizes of the batches to expect, ascending; without the remainder of Offline's query."""
    if settings.scenario == "SingleStream":
        return [1]
    if settings.scenario == "Server":
        return list_sizes(settings.batch_size)
    if settings.scenario == "Offline":
        return [settings.batch_size]
    samples = test.multi_stream_samples_per_query
    size = min(settings.batch_size, math.ceil(samples / devices))
    return sorted({size, samples % size or size})


def _refuse_audit_config() -> None:
    path = Path(AUDIT_CONFIG).absolute()
    if path.exists():
        raise UserError(
            f"{path}: this file of LoadGen's overrides every setting, and is not used here. Move "
            "it away; CK_LOADGEN_COMPLIANCE runs a compliance test"
        )


def _run_loadgen(
    test: Any,
    settings: ResolvedSettings,
    system: SystemUnderTest,
    interface: Interface,
    log_dir: Path,
) -> float:
    """Run the test. Returns its duration in seconds. Raises what ended it."""
    total, loadable = settings.dataset_size, settings.buffer_size
    started = time.perf_counter()
    _run_interruptibly(lambda: interface.start(system, total, loadable, test, log_dir), system)
    wall_s = time.perf_counter() - started
    system.close()
    if system.error is not None:
        raise system.error
    return wall_s


def _make_system(
    test: Any,
    settings: ResolvedSettings,
    engines: Sequence[Engine],
    sizes: Sequence[int],
    images: NDArray[np.uint8],
    interface: Interface,
) -> SystemUnderTest:
    import numpy as np

    from ck_mlperf.loadgen.harness.queued import QueuedSystem
    from ck_mlperf.loadgen.harness.runner import Runner
    from ck_mlperf.loadgen.harness.sut import SystemUnderTest

    top5, size, respond = None, settings.batch_size, interface.make_responses
    if engines[0].gives_top5 and settings.measures_accuracy:
        top5 = np.full((settings.dataset_size, 5), -1, np.int32)
    runners = [Runner(engine, images, size, top5, respond) for engine in engines]
    policies: Sequence[BatchPolicy]
    is_server = settings.scenario == "Server"
    if is_server:
        bound_s = test.server_target_latency_ns / 1e9
        policies = [DeadlineBatches(sizes, bound_s, engine.at_once) for engine in engines]
    elif len(engines) > 1:
        policies = [EagerBatches(size, len(engines)) for _ in engines]
    else:
        return SystemUnderTest(runners, respond, sizes)
    return QueuedSystem(runners, respond, sizes, policies, answers_after_error=not is_server)


def _count_devices(system: SystemUnderTest, settings: ResolvedSettings) -> tuple[DeviceCounts, ...]:
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
    """Run `start` on another thread, so that Ctrl-C arrives here and never in a callback."""
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
    # Not thread.join(): up to Python 3.12, an interrupted join marks the thread as ended.
    while not done.is_set():
        try:
            done.wait()
        except KeyboardInterrupt as error:
            system.fail(error)
    thread.join()


def _keep_logs(unfinished_dir: Path, log_dir: Path) -> None:
    """Move complete logs to `log_dir`, the summary last."""
    for name in LOG_NAMES:
        path = unfinished_dir / name
        content = read_regular(path, MOST_LOG_BYTES)
        # LoadGen does not notice a full disk.
        if not content.endswith(b"\n") or (path.suffix == ".json" and content[-3:] != b"\n]\n"):
            raise UserError(f"{log_dir / name}: LoadGen left it cut off. Is the disk full?")
    conf_file = unfinished_dir / USER_CONF
    if conf_file.exists():
        conf_file.replace(log_dir / USER_CONF)
    for name in LOG_NAMES:
        (unfinished_dir / name).replace(log_dir / name)
