"""The system under test as it is usually written in Python: the yardstick of bench/harness.py.

The same engine, sample library and batches, but for each sample an array that holds the result, a
response object and a call of QuerySamplesComplete; queries come through ConstructSUT.
"""

from __future__ import annotations

import array

import mlperf_loadgen as lg
import numpy as np
from numpy.typing import NDArray

from ck_mlperf.loadgen.engines import Engine
from ck_mlperf.loadgen.harness.samples import SampleLibrary


class NaiveSystem:
    def __init__(self, engine: Engine, samples: SampleLibrary, batch_size: int) -> None:
        self.engine = engine
        self.samples = samples
        self.batch_size = batch_size

    def issue(self, query_samples: list[lg.QuerySample]) -> None:
        for begin in range(0, len(query_samples), self.batch_size):
            batch = query_samples[begin : begin + self.batch_size]
            self.engine.enqueue(self.samples.find_rows([sample.index for sample in batch]))
            for sample, label in zip(batch, self.engine.collect(), strict=True):
                result = array.array("i", [label])
                address, length = result.buffer_info()
                response = lg.QuerySampleResponse(sample.id, address, length * result.itemsize)
                lg.QuerySamplesComplete([response])

    def flush(self) -> None:
        pass


def run_naive(
    test_settings: lg.TestSettings,
    engine: Engine,
    images: NDArray[np.uint8],
    batch_size: int,
    log_dir: str,
) -> None:
    """Run one LoadGen test of NaiveSystem over `images`."""
    samples = SampleLibrary(images, engine)
    system = NaiveSystem(engine, samples, batch_size)
    sut = lg.ConstructSUT(system.issue, system.flush)
    qsl = lg.ConstructQSL(len(images), len(images), samples.load, samples.unload)
    log_settings = lg.LogSettings()
    log_settings.enable_trace = False
    log_settings.log_output.outdir = log_dir
    log_settings.log_output.copy_summary_to_stdout = False
    lg.StartTestWithLogSettings(sut, qsl, test_settings, log_settings)
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
