from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ck_mlperf.explore.entry import Entry, hold_lock
from ck_mlperf.explore.local import LocalExecutor
from ck_mlperf.explore.measure import Measurer, RunFailedError
from ck_mlperf.explore.runs import Configuration, Network
from ck_mlperf.explore.sweep import read_sweep

if TYPE_CHECKING:
    from .conftest import FakeCk

CONFIGURATION = Configuration(Network(), "Offline", 8)


@pytest.fixture
def measurer(fake_ck: FakeCk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Measurer]:
    for name, value in fake_ck.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", "/no/python")
    sweep = read_sweep({"scenario": "Offline", "count": "64", "name": "probes"})
    entry = Entry(fake_ck.repository, sweep.name)
    with hold_lock(fake_ck.repository) as lock:
        entry.make({"find": "max"}, ("explore", "loadgen"))
        yield Measurer(sweep, entry, LocalExecutor(entry, lock))


def test_a_configuration_is_measured_once(fake_ck: FakeCk, measurer: Measurer) -> None:
    record = measurer.measure(CONFIGURATION, 1)
    assert record.samples_per_second == 1234.5
    assert measurer.measure(CONFIGURATION, 1) == record
    again = Measurer(measurer.sweep, Entry(fake_ck.repository, "probes"), measurer.executor)
    assert again.measure(CONFIGURATION, 1) == record
    assert len(fake_ck.list_calls()) == 1
    measurer.measure(CONFIGURATION, 2)
    assert [run.rpartition(".")[2] for run in fake_ck.list_calls()] == ["r1", "r2"]
    assert len(measurer.outcomes) == 2


def test_a_failed_probe_says_why_and_is_not_tried_again(
    fake_ck: FakeCk, measurer: Measurer
) -> None:
    fake_ck.behave(batch_8="fail")
    for _ in range(2):
        with pytest.raises(RunFailedError, match="repetition 1: the model takes at most 3"):
            measurer.measure(CONFIGURATION, 1)
    assert len(fake_ck.list_calls()) == 1
    fake_ck.behave()
    measurer.retry_failed = True
    assert measurer.measure(CONFIGURATION, 1).timing.wall_s == 0.5
    assert not measurer.entry.read_failures()
