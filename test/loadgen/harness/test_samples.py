"""The sample library: which rows hold which samples."""

import numpy as np
import pytest

from ck_mlperf.loadgen.harness.samples import SampleLibrary


class Recorder:
    images = None

    def load(self, images):
        self.images = images

    def unload(self):
        self.images = None


@pytest.fixture
def images():
    return np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)


@pytest.mark.parametrize(
    "indices",
    [
        list(range(100)),
        [3, 1, 0, 2],
        [50, 52, 51],
        [97, 3, 40],
        [5, 4, 3, 5, 4],  # as MultiStream pads
        [0, 2],
    ],
)
def test_rows_hold_their_samples(images, indices):
    engine = Recorder()
    library = SampleLibrary(images, engine)
    library.load(indices)
    assert len(engine.images) == len(set(indices))
    rows = library.find_rows(indices)
    assert engine.images[list(rows), 0, 0, 0].tolist() == indices
    every_other = np.repeat(np.array(indices, np.int64), 2)[::2]  # as in LoadGen's memory
    assert np.array_equal(library.find_rows(every_other), rows)
    assert np.array_equal(library.find_rows(every_other[:1]), rows[:1])
    library.unload(indices)
    assert engine.images is None


def test_neighbours_in_loadgens_order_are_neighbouring_rows(images):
    library = SampleLibrary(images, Recorder())
    order = np.random.default_rng(1).permutation(100).tolist()
    library.load(order)
    assert list(library.find_rows(order[20:30])) == list(range(20, 30))
    assert list(library.find_rows(order[20:21])) == [20]


def test_run_of_a_memory_map_is_not_copied(images):
    engine = Recorder()
    SampleLibrary(images, engine).load(range(40, 60))
    assert np.shares_memory(engine.images, images)
