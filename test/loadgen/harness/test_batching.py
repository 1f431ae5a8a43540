"""The batching policies on a simulated clock."""

import heapq
from collections import deque

import numpy as np
import pytest

from ck_mlperf.loadgen.harness.batching import DeadlineBatches, EagerBatches, list_sizes

BOUND_S = 15e-3
HOST_S = 50e-6  # to enqueue a batch, and to complete one
WAKE_S = 100e-6  # by which a timed wait ends late


class NoBatches(EagerBatches):
    """One sample at a time."""

    def decide(self, now, waiting, oldest):
        return super().decide(now, min(waiting, 1), oldest)


class SimulatedDevices:
    """Devices that take a + b/rate seconds for a batch of b, filled up to the next of the sizes.

    One batch computes at a time; one worker for each device does what its policy says, as
    harness.queued.QueuedSystem does: a batch that ends while its worker holds another back is seen
    when the worker wakes up.
    """

    def __init__(self, policies, sizes, a_s, rate, depth=2):
        self.policies = policies
        self.sizes = sizes
        self.a_s = a_s
        self.rate = rate
        self.depth = depth
        self.batches = []

    def take_s(self, samples):
        """How long a batch takes."""
        filled = next(size for size in self.sizes if size >= samples)
        return self.a_s + filled / self.rate

    def answer(self, arrivals):
        """The latency of each sample, in seconds, of those that arrive at `arrivals`."""
        ended = [0.0] * len(arrivals)
        in_flight = [deque() for _ in self.policies]
        free_at = [0.0] * len(self.policies)
        awake = [(0.0, worker) for worker in range(len(self.policies))]
        asleep, holding = deque(), set()
        come = taken = done = 0
        while done < len(arrivals):
            if come < len(arrivals) and (not awake or arrivals[come] <= awake[0][0]):
                come += 1
                waiting = come - taken
                if asleep:
                    heapq.heappush(awake, (arrivals[come - 1] + WAKE_S, asleep.popleft()))
                elif waiting >= self.sizes[-1] and holding:
                    worker = holding.pop()
                    awake = [(at, other) for at, other in awake if other != worker]
                    heapq.heapify(awake)
                    heapq.heappush(awake, (arrivals[come - 1] + WAKE_S, worker))
                continue
            now, worker = heapq.heappop(awake)
            holding.discard(worker)
            policy, mine, waiting = self.policies[worker], in_flight[worker], come - taken
            if len(mine) < self.depth:
                samples, wait_s = policy.decide(now, waiting, arrivals[taken] if waiting else 0.0)
                if samples:
                    now += HOST_S
                    policy.started(now, samples)
                    free_at[worker] = max(free_at[worker], now) + self.take_s(samples)
                    mine.append((free_at[worker], range(taken, taken + samples)))
                    taken += samples
                    self.batches.append(samples)
                    if taken < come and asleep:
                        heapq.heappush(awake, (now + WAKE_S, asleep.popleft()))
                    heapq.heappush(awake, (now, worker))
                    continue
                if wait_s > 0:
                    holding.add(worker)
                    heapq.heappush(awake, (now + wait_s + WAKE_S, worker))
                    continue
            if mine:
                end, samples = mine.popleft()
                now = max(now, end) + HOST_S
                for sample in samples:
                    ended[sample] = now
                done += len(samples)
                policy.finished(now)
                heapq.heappush(awake, (now, worker))
            else:
                asleep.append(worker)
        assert come == taken == len(arrivals)
        return np.array(ended) - arrivals


def make_arrivals(rate, count=20_000, seed=1):
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    return np.cumsum(gaps).tolist()


def measure_p99(make_policy, most, a_s, rate, qps, devices=1, depth=2, bound_s=BOUND_S):
    """The 99th percentile of the latency in seconds, and the mean batch."""
    sizes = list_sizes(most)
    policies = [make_policy(sizes, bound_s) for _ in range(devices)]
    simulated = SimulatedDevices(policies, sizes, a_s, rate, depth)
    latencies = simulated.answer(make_arrivals(qps * devices))
    return np.percentile(latencies, 99), np.mean(simulated.batches)


def make_greedy(sizes, bound_s):
    return EagerBatches(sizes[-1], 1)


def make_none(sizes, bound_s):
    return NoBatches(sizes[-1], 1)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("a_s", "rate", "most", "bound_s"),
    [
        (0.3e-3, 11_000, 256, 15e-3),  # ResNet-50 in fp16 with ONNX Runtime on an H200
        (0.3e-3, 11_000, 30, 15e-3),
        (0.5e-3, 90_000, 256, 15e-3),  # int8 with TensorRT, about
        (1e-3, 11_000, 64, 15e-3),
        (0.1e-3, 2_000, 32, 60e-3),
        (2e-3, 3_000, 64, 60e-3),
    ],
)
def test_bound_holds_near_the_offline_rate(a_s, rate, most, bound_s, devices):
    qps = 0.85 * most / (a_s + most / rate)
    load = dict(most=most, a_s=a_s, rate=rate, qps=qps, devices=devices, bound_s=bound_s)
    p99, batch = measure_p99(DeadlineBatches, **load)
    assert p99 < bound_s
    greedy_p99, _ = measure_p99(make_greedy, **load)
    assert p99 < 0.8 * greedy_p99
    assert measure_p99(make_none, **load)[0] > bound_s
    assert batch > 2


def test_a_rate_that_greedy_batches_do_not_bear():
    load = dict(most=256, a_s=0.3e-3, rate=11_000, qps=0.92 * 11_000)
    assert measure_p99(DeadlineBatches, **load)[0] < BOUND_S
    assert measure_p99(make_greedy, **load)[0] > 1.5 * BOUND_S


@pytest.mark.parametrize("depth", [1, 3])
def test_other_depths(depth):
    load = dict(most=256, a_s=0.3e-3, rate=11_000, qps=0.85 * 11_000, depth=depth)
    p99, _ = measure_p99(DeadlineBatches, **load)
    assert p99 < min(BOUND_S, 0.8 * measure_p99(make_greedy, **load)[0])


def test_a_light_load_waits_for_nothing():
    load = dict(most=32, a_s=0.3e-3, rate=11_000, qps=50)
    p99, _ = measure_p99(DeadlineBatches, **load)
    alone_s = 0.3e-3 + 1 / 11_000 + 2 * HOST_S + WAKE_S
    assert p99 < 1.6 * alone_s  # a sample may come while another computes


def test_an_idle_device_gets_what_waits_at_once():
    policy = DeadlineBatches(list_sizes(32), BOUND_S)
    assert policy.decide(0.0, 0, 0.0) == (0, 0)
    assert policy.decide(1.0, 1, 1.0) == (1, 0)
    assert policy.decide(1.0, 9, 1.0) == (8, 0)  # 9 would be filled up to 10
    assert policy.decide(1.0, 31, 1.0) == (28, 0)
    assert policy.decide(1.0, 100, 1.0) == (32, 0)


def make_busy(known_s=4e-3, size=8, bound_s=BOUND_S):
    """A policy that knows a batch of `size` to take `known_s`, with one started at 1.0."""
    policy = DeadlineBatches(list_sizes(32), bound_s)
    policy.started(0.0, size)
    policy.finished(known_s)
    policy.started(1.0, size)
    return policy


def test_a_batch_is_held_back_until_the_device_is_about_to_be_free():
    policy = make_busy()
    samples, wait_s = policy.decide(1.001, 3, 1.0005)
    assert samples == 0
    assert 1.003 < 1.001 + wait_s < 1.004
    assert policy.decide(1.001, 0, 0.0) == (0, wait_s)
    assert policy.decide(1.001 + wait_s, 5, 1.0005) == (5, 0)
    assert policy.decide(1.001 + wait_s, 0, 0.0) == (0, 0)  # then to complete


def test_a_full_batch_is_not_held_back():
    assert make_busy().decide(1.0, 32, 1.0) == (32, 0)
    assert make_busy().decide(1.0, 40, 1.0) == (32, 0)


def test_the_oldest_is_not_held_back_over_its_bound():
    policy = make_busy(bound_s=8e-3)
    # With 4 ms for its own batch and the lead, it must start 3.8 ms after its arrival.
    samples, wait_s = policy.decide(1.0, 8, 0.998)
    assert (samples, wait_s) == (0, pytest.approx(1.8e-3))
    assert policy.decide(1.0019, 8, 0.998) == (8, 0)
    assert policy.decide(1.0, 8, 0.9) == (8, 0)


def test_no_third_batch_waits_behind_two():
    policy = make_busy()
    policy.started(1.003, 10)
    assert policy.decide(1.0035, 20, 1.003) == (0, 0)
    policy.finished(1.004)
    assert policy.decide(1.0041, 20, 1.003).wait_s > 1e-3


def make_pair(known_s=4e-3, size=8):
    """Of a device that computes two batches at a time: both run, since 1.0 and 1.001."""
    policy = DeadlineBatches(list_sizes(32), BOUND_S, at_once=2)
    policy.started(0.0, size)
    policy.finished(known_s)
    policy.started(1.0, size)
    policy.started(1.001, size)
    return policy


def test_a_device_that_computes_two_at_a_time_gets_a_second_at_once():
    policy = DeadlineBatches(list_sizes(32), BOUND_S, at_once=2)
    policy.started(0.0, 8)
    policy.finished(4e-3)
    assert policy.decide(0.9, 9, 0.9) == (8, 0)
    policy.started(1.0, 8)
    assert policy.decide(1.0001, 3, 1.0) == (3, 0)
    assert policy.decide(1.0001, 0, 0.0) == (0, 0)
    policy.started(1.0001, 3)
    assert policy.decide(1.0002, 3, 1.0).samples == 0


def test_a_third_is_held_back_until_the_oldest_of_two_ends():
    policy = make_pair()
    samples, wait_s = policy.decide(1.0015, 3, 1.001)
    assert samples == 0
    assert 1.003 < 1.0015 + wait_s < 1.004  # the younger one ends at 1.005 or later
    assert policy.decide(1.0015 + wait_s, 5, 1.001) == (5, 0)
    policy.finished(1.004)
    assert policy.decide(1.0041, 3, 1.001) == (3, 0)  # one place is free


def test_no_fourth_batch_waits_behind_two_that_run_and_one_that_is_ready():
    policy = make_pair()
    policy.started(1.0038, 10)
    assert policy.decide(1.0039, 20, 1.0) == (0, 0)
    assert policy.decide(1.5, 20, 1.0) == (0, 0)  # whatever it costs the oldest
    assert policy.decide(1.0039, 32, 1.0) == (32, 0)  # a full one does not grow
    policy.finished(1.004)
    assert policy.decide(1.0041, 20, 1.004).wait_s > 1e-3


def test_the_oldest_is_not_held_back_over_its_bound_by_two_that_run():
    policy = make_pair()
    assert policy.decide(1.0015, 8, 1.0015 - BOUND_S) == (8, 0)


def test_with_two_at_a_time_nothing_is_held_back_before_a_batch_was_measured():
    policy = DeadlineBatches(list_sizes(32), BOUND_S, at_once=2)
    policy.started(1.0, 4)
    policy.started(1.0, 4)
    assert policy.decide(1.0001, 3, 1.0) == (3, 0)


def test_nothing_is_held_back_before_a_batch_was_measured():
    policy = DeadlineBatches(list_sizes(32), BOUND_S)
    policy.started(1.0, 4)
    assert policy.decide(1.0001, 3, 1.0) == (3, 0)


def test_what_a_batch_takes_is_learned():
    policy = make_busy(known_s=4e-3)
    policy.finished(1.5)  # a hiccup
    policy.started(2.0, 8)
    assert policy.decide(2.0, 1, 2.0).wait_s < 4.5e-3
    now = 2.0
    for _ in range(40):
        now += 1e-3
        policy.finished(now)
        policy.started(now, 8)
    assert policy.decide(now, 1, now).wait_s < 1e-3
    assert policy.decide(now, 1, now).wait_s > 0.5e-3


def test_sizes():
    assert list_sizes(1) == [1]
    assert list_sizes(9) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert list_sizes(30) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 30]
    sizes = list_sizes(4096)
    assert sizes[-5:] == [2048, 2560, 3072, 3584, 4096]
    for samples in range(1, 4097):
        assert next(size for size in sizes if size >= samples) < 1.25 * samples


def test_eager_batches_are_cut_for_all_devices():
    policy = EagerBatches(32, 4)
    assert policy.decide(0.0, 0, 0.0) == (0, 0)
    for samples, size in ((8, 2), (9, 3), (1, 1), (128, 32), (100_000, 32)):
        policy.arrived(samples)
        assert policy.decide(0.0, samples, 0.0) == (size, 0)
