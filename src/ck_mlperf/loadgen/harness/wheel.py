"""LoadGen by its Python module (the wheel of mlcommons-loadgen), which makes lists of queries.

LoadGen wants a response for each sample, with the sample's id and the address of its result; it
copies the result before `QuerySamplesComplete` returns. So one pool of responses that point into
one result buffer serves all batches of an engine. Nothing is made per sample: only the ids are set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlperf_loadgen as lg
from mlperf_loadgen import QuerySampleResponse, QuerySamplesComplete

from ck_mlperf.loadgen.compliance import AUDIT_CONFIG

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.harness.interface import Ids
    from ck_mlperf.loadgen.harness.sut import SystemUnderTest

_set_id = QuerySampleResponse.id.fset
_set_id = getattr(_set_id, "__func__", _set_id)  # without pybind's wrapper: 6% faster
_LABEL_BYTES = 4


class WheelResponses:
    """A response object for each label in `results`."""

    def __init__(self, results: NDArray[np.int32]) -> None:
        address = results.ctypes.data
        self._pool = [
            QuerySampleResponse(0, address + _LABEL_BYTES * slot, _LABEL_BYTES)
            for slot in range(len(results))
        ]
        self.complete_one = _make_complete_one(results, self._pool)

    def complete(self, ids: Ids) -> None:
        count, pool = len(ids), self._pool
        deque(map(_set_id, pool, ids), maxlen=0)  # the fastest loop that Python has
        QuerySamplesComplete(pool if count == len(pool) else pool[:count])


def _make_complete_one(
    results: NDArray[np.int32], pool: list[QuerySampleResponse]
) -> Callable[[int, int], None]:
    """A function: a method would look up its attributes each time, which SingleStream shows."""
    response, first, complete, set_id = pool[0], pool[:1], QuerySamplesComplete, _set_id

    def complete_one(id_: int, label: int) -> None:
        results[0] = label
        set_id(response, id_)
        complete(first)

    return complete_one


class WheelInterface:
    """By ConstructFastSUT, which hands over ids and indices without an object for each sample."""

    name = "wheel"
    bytes_per_sample = 160
    most_samples_per_s = 5e6

    def make_responses(self, results: NDArray[np.int32]) -> WheelResponses:
        return WheelResponses(results)

    def start(
        self, system: SystemUnderTest, total: int, loadable: int, test: Any, log_dir: Path
    ) -> None:
        sut = lg.ConstructFastSUT(system.issue, system.flush)
        qsl = lg.ConstructQSL(total, loadable, system.load, system.unload)
        log_settings = lg.LogSettings()
        log_settings.enable_trace = False
        log_settings.log_output.outdir = str(log_dir.absolute())
        log_settings.log_output.copy_summary_to_stdout = False
        lg.StartTestWithLogSettings(sut, qsl, test, log_settings, str(log_dir / AUDIT_CONFIG))
        lg.DestroyQSL(qsl)
        lg.DestroyFastSUT(sut)
