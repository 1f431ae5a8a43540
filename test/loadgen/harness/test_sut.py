"""The queued system under test without LoadGen: who answers what, and when."""

import contextlib
import ctypes
import random
import statistics
import threading
import time
from collections import Counter

import numpy as np
import pytest

import ck_mlperf.loadgen.harness.wheel as wheel
from ck_mlperf.common.errors import UserError
from ck_mlperf.loadgen.engines import Engine, EngineError
from ck_mlperf.loadgen.harness.batching import (
    BatchPolicy,
    DeadlineBatches,
    Decision,
    EagerBatches,
    list_sizes,
)
from ck_mlperf.loadgen.harness.native import SAMPLE
from ck_mlperf.loadgen.harness.queued import QueuedSystem
from ck_mlperf.loadgen.harness.runner import Runner
from ck_mlperf.loadgen.harness.sample_queue import SampleQueue
from ck_mlperf.loadgen.harness.sut import SystemUnderTest

IMAGES = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
BATCH_SIZE = 8
PATIENCE_S = 10


class ThreeTimes(Engine):
    """Answers sample n with 3 n + 1; `hook` is called in `collect`."""

    name = "three-times"
    version = "1"
    device = "none"

    def __init__(self, depth=1, hook=lambda: None):
        self.depth = depth
        self.hook = hook
        self.in_flight = []
        self.started_at = []
        self.loaded_by = None

    def open(self): ...

    def close(self): ...

    def load(self, images):
        self.loaded_by = threading.get_ident()
        self.images = images[:, 0, 0, 0].astype(np.int32)

    def unload(self):
        self.images = None

    def enqueue(self, rows):
        self.started_at.append(time.monotonic())
        assert 1 <= len(rows) <= BATCH_SIZE
        assert len(self.in_flight) < self.depth
        self.in_flight.append(3 * self.images[list(rows)] + 1)

    def collect(self):
        self.hook()
        return self.in_flight.pop(0)


class Answers:
    """Stands in for LoadGen's QuerySamplesComplete; the label of each response id."""

    def __init__(self):
        self.labels = {}
        self.counts = Counter()
        self.changed = threading.Condition()

    def __call__(self, responses):
        with self.changed:
            for response in responses:
                assert response.size == 4
                self.labels[response.id] = ctypes.c_int32.from_address(response.data).value
                self.counts[response.id] += 1
            self.changed.notify_all()

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.labels) >= count, PATIENCE_S)


@pytest.fixture
def answers(monkeypatch):
    answers = Answers()
    monkeypatch.setattr(wheel, "QuerySamplesComplete", answers)
    return answers


def make_runners(engines):
    return [Runner(engine, IMAGES, BATCH_SIZE, None, wheel.WheelResponses) for engine in engines]


@pytest.fixture
def make_system(answers):
    systems = []

    def make(engines, policies=None, answers_after_error=False):
        policies = policies or [EagerBatches(BATCH_SIZE, 1) for _ in engines]
        system = QueuedSystem(
            make_runners(engines), wheel.WheelResponses, (), policies, answers_after_error
        )
        systems.append(system)
        system.load(range(200))
        return system

    yield make
    for system in systems:
        system.close()


def make_deadline_policies(count):
    return [DeadlineBatches(list_sizes(BATCH_SIZE), 15e-3) for _ in range(count)]


def flush(system):
    """Flush on a thread of its own, which must end."""
    thread = threading.Thread(target=system.flush, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the flush hangs"


@pytest.mark.parametrize("kind", ["deadline", "eager"])
def test_each_sample_is_answered_once(make_system, answers, kind):
    engines = [ThreeTimes(depth, lambda: time.sleep(2e-4)) for depth in (1, 2, 3)]
    system = make_system(engines, make_deadline_policies(3) if kind == "deadline" else None)
    draw = random.Random(1)
    wanted = {}
    while len(wanted) < 3000:
        count = draw.choice((1, 1, 1, 2, 5, 40))
        ids = list(range(len(wanted), len(wanted) + count))
        indices = [draw.randrange(200) for _ in ids]
        wanted |= {id_: 3 * index + 1 for id_, index in zip(ids, indices, strict=True)}
        system.issue(ids, indices)
        if draw.random() < 0.2:
            time.sleep(1e-3)
    flush(system)
    assert answers.labels == wanted
    assert set(answers.counts.values()) == {1}
    assert system.error is None
    tallies = [runner.tallies[-1] for runner in system.runners]
    assert sum(tally.samples for tally in tallies) == len(wanted)
    assert all(tally.samples >= tally.batches > 10 for tally in tallies)


def issue_arrays(system, ids, indices):
    """As the native interface does: in memory that holds something else after the call."""
    samples = np.zeros(len(ids), SAMPLE)
    samples["id"], samples["index"] = ids, indices
    system.issue(samples["id"], samples["index"])
    samples.fill(0)


@pytest.mark.parametrize("devices", [1, 3])
def test_arrays_are_read_during_the_call_only(answers, devices):
    engines = [ThreeTimes(depth, lambda: time.sleep(2e-4)) for depth in range(devices, 0, -1)]
    if devices == 1:
        system = SystemUnderTest(make_runners(engines), wheel.WheelResponses)
    else:
        policies = [EagerBatches(BATCH_SIZE, devices) for _ in engines]
        system = QueuedSystem(make_runners(engines), wheel.WheelResponses, (), policies, True)
    system.load(range(200))
    wanted = {}
    for count in (1, 2, 17, 400, 8):
        ids = list(range(len(wanted), len(wanted) + count))
        wanted |= {id_: 3 * (id_ % 200) + 1 for id_ in ids}
        issue_arrays(system, ids, [id_ % 200 for id_ in ids])
        answers.wait_for(len(wanted))  # as LoadGen does
    flush(system) if devices > 1 else system.flush()
    system.close()
    assert system.error is None
    assert answers.labels == wanted
    assert set(answers.counts.values()) == {1}


@pytest.mark.parametrize("devices", [1, 2])
def test_after_an_error_arrays_are_answered_at_once(make_system, answers, devices):
    engines = [ThreeTimes(2, fail), *(ThreeTimes() for _ in range(devices - 1))]
    system = make_system(engines, answers_after_error=True)
    for begin in (0, 3000):
        issue_arrays(system, range(begin, begin + 3000), [5] * 3000)
    answers.wait_for(6000)
    assert {*answers.labels.values()} <= {0, 16}
    assert set(answers.counts.values()) == {1}
    assert str(system.error) == "failed"
    flush(system)


def test_an_error_from_outside_ends_a_call_that_waits(make_system, answers):
    may_go_on = threading.Event()
    system = make_system([ThreeTimes(hook=lambda: may_go_on.wait(PATIENCE_S))],
                         answers_after_error=True)  # fmt: skip
    timer = threading.Timer(0.05, lambda: (system.fail(KeyboardInterrupt()), may_go_on.set()))
    timer.start()
    issue_arrays(system, range(100), [5] * 100)
    answers.wait_for(100)
    timer.join()
    assert isinstance(system.error, KeyboardInterrupt)
    assert set(answers.counts.values()) == {1}


def test_sets_are_loaded_at_the_same_time(make_system):
    engines = [ThreeTimes() for _ in range(3)]
    together = threading.Barrier(3, timeout=PATIENCE_S)
    for engine in engines:
        engine.load = lambda images: together.wait()
    assert make_system(engines).error is None


@pytest.mark.parametrize("refused", ["before", "after"])
def test_images_are_checked_while_they_are_loaded(make_system, refused):
    engine = ThreeTimes()
    system = make_system([engine])
    steps = []
    engine.load = lambda images: steps.append("load")

    @contextlib.contextmanager
    def check(indices):
        for step in ("before", "after"):
            steps.append(list(indices))
            if step == refused:
                raise UserError("changed")
            if step == "before":
                yield

    system.check_images = check
    system.load([5, 3, 5])
    assert steps == [[3, 5]] if refused == "before" else [[3, 5], "load", [3, 5]]
    assert str(system.error) == "changed"


def test_a_device_that_is_stuck_keeps_none_from_the_others(make_system, answers):
    may_go_on = threading.Event()
    stuck = ThreeTimes(hook=lambda: may_go_on.wait(PATIENCE_S))
    system = make_system([stuck, ThreeTimes()])
    for number in range(100):
        system.issue([number], [number])
    answers.wait_for(99)
    assert len(stuck.started_at) <= 1
    may_go_on.set()
    flush(system)
    assert len(answers.labels) == 100


def test_a_query_wakes_all_devices(make_system, answers):
    together = threading.Barrier(3, timeout=PATIENCE_S)
    system = make_system([ThreeTimes(hook=together.wait) for _ in range(3)])
    time.sleep(0.01)  # so that all of them sleep
    system.issue(list(range(3 * BATCH_SIZE)), [1] * 3 * BATCH_SIZE)
    flush(system)
    assert system.error is None
    assert answers.labels == dict.fromkeys(range(3 * BATCH_SIZE), 4)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_lone_sample_is_not_delayed(make_system, answers, devices):
    """It starts as soon as under a policy that never holds anything back."""

    def measure_delay(policies):
        engines = [ThreeTimes(2) for _ in range(devices)]
        system = make_system(engines, policies)
        delays = []
        for number in range(40):
            answered = len(answers.labels)
            issued = time.monotonic()
            system.issue([answered], [number])
            answers.wait_for(answered + 1)
            started = max(engine.started_at[-1] for engine in engines if engine.started_at)
            delays.append(started - issued)
            time.sleep(1e-3)
        return statistics.median(delays)

    eager_s = measure_delay(None)
    assert measure_delay(make_deadline_policies(devices)) < 10 * eager_s


class Holding(BatchPolicy):
    """Holds back what waits for a fixed time."""

    def __init__(self, hold_s):
        self.hold_s = hold_s

    def decide(self, now, waiting, oldest):
        if not waiting:
            return Decision(0, 0)
        rest = oldest + self.hold_s - now
        return Decision(0, rest) if rest > 0 and waiting < BATCH_SIZE else Decision(waiting, 0)


def test_a_hold_ends_on_time(make_system, answers):
    """That is, about as late as a wait of that length by itself."""
    engine, hold_s, alone = ThreeTimes(), 3e-3, threading.Condition()
    system = make_system([engine], [Holding(hold_s)])
    late, late_alone = [], []
    for number in range(40):
        issued = time.monotonic()
        system.issue([number], [number])
        answers.wait_for(number + 1)
        late.append(engine.started_at[-1] - issued - hold_s)
        begun = time.monotonic()
        with alone:
            alone.wait(hold_s)
        late_alone.append(time.monotonic() - begun - hold_s)
    assert min(late) >= 0
    assert statistics.median(late) < 10 * statistics.median(late_alone)


def test_a_hold_ends_with_a_full_batch(make_system, answers):
    engine = ThreeTimes()
    system = make_system([engine], [Holding(PATIENCE_S)])
    issued = time.monotonic()
    for number in range(BATCH_SIZE):
        system.issue([number], [number])
        time.sleep(5e-3)  # so that it holds back what came
    answers.wait_for(BATCH_SIZE)
    assert engine.started_at[0] - issued < PATIENCE_S
    assert len(engine.started_at) == 1


def fail():
    raise EngineError("failed")


@pytest.mark.parametrize("devices", [1, 2])
def test_after_an_error_a_server_answers_at_the_flush(make_system, answers, devices):
    engines = [ThreeTimes(2, fail) for _ in range(devices)]
    system = make_system(engines)
    for number in range(50):
        system.issue([number], [number])
        time.sleep(1e-4)
    assert str(system.error) == "failed"
    assert not answers.labels
    flush(system)
    assert answers.labels == dict.fromkeys(range(50), 0)
    assert set(answers.counts.values()) == {1}


@pytest.mark.parametrize("devices", [1, 2])
def test_after_an_error_a_whole_query_is_answered_at_once(make_system, answers, devices):
    system = make_system([ThreeTimes(2, fail), *(ThreeTimes() for _ in range(devices - 1))],
                         answers_after_error=True)  # fmt: skip
    system.issue(list(range(1000)), [5] * 1000)
    answers.wait_for(1000)
    system.issue([1000, 1001], [0, 1])
    answers.wait_for(1002)
    assert answers.labels[1001] == 0
    assert {*answers.labels.values()} <= {0, 16}
    assert set(answers.counts.values()) == {1}
    assert str(system.error) == "failed"
    flush(system)


def test_an_error_from_outside_ends_a_hold(make_system, answers):
    system = make_system([ThreeTimes(), ThreeTimes()], [Holding(60), Holding(60)])
    system.issue([7], [7])
    time.sleep(0.01)
    system.fail(KeyboardInterrupt())
    flush(system)
    assert answers.labels == {7: 0}
    assert isinstance(system.error, KeyboardInterrupt)
    system.fail(EngineError("later"))
    assert isinstance(system.error, KeyboardInterrupt)


def test_a_defect_of_the_policy_ends_the_test(make_system, answers):
    class Broken(EagerBatches):
        def decide(self, now, waiting, oldest):
            return Decision(1 // waiting, 0)

    system = make_system([ThreeTimes()], [Broken(BATCH_SIZE, 1)])
    system.issue([1], [1])
    flush(system)
    assert isinstance(system.error, ZeroDivisionError)


def test_the_queue_gives_back_what_was_taken():
    queue = SampleQueue()
    ids = list(range(1000))
    queue.add(ids, list(ids), 1.0)
    queue.add([1000, 1001], [0, 1], 2.0)
    assert queue.oldest == 1.0
    assert queue.take(100) == (list(range(100)), list(range(100)))
    assert queue.take(100)[0] == list(range(100, 200))
    assert len(ids) == 802
    assert queue.oldest == 1.0
    assert queue.take(801)[0][-1] == 1000
    assert (queue.oldest, queue.count) == (2.0, 1)
    assert queue.take_all() == [1001]
    assert (queue.oldest, queue.count) == (0.0, 0)
    queue.add([], [], 3.0)
    assert (queue.oldest, queue.take_all()) == (0.0, [])
