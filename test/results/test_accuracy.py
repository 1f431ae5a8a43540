import numpy as np
import pytest

from ck_mlperf.common.errors import UserError
from ck_mlperf.results.accuracy import measure_accuracy
from ck_mlperf.results.logs import read_answers

LABELS = np.array([3, 1, 4, 1], np.int32)


def test_the_count_of_2019():
    answers = [(index, 1 if index < 376 else 0) for index in range(500)]
    accuracy = measure_accuracy(answers, np.ones(500, np.int32))
    assert accuracy.top1_percent == pytest.approx(75.2)
    assert accuracy.top5_percent is None


def test_answers_come_in_any_order():
    accuracy = measure_accuracy([(2, 4), (0, 3), (3, 0), (1, -1)], LABELS)
    assert (accuracy.good, accuracy.total) == (2, 4)


def test_top5():
    top5 = np.array([[9, 3, 0, 0, 0], [0] * 5, [4, 0, 0, 0, 0], [-1, 0, 0, 0, 1]], np.int32)
    accuracy = measure_accuracy([(0, 9), (1, 0), (2, 4), (3, -1)], LABELS, top5)
    assert (accuracy.good, accuracy.top5_percent) == (1, 75)
    with pytest.raises(ValueError, match="top5"):
        measure_accuracy([(0, 9), (1, 0), (2, 4), (3, -1)], LABELS, top5[:3])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "0 of 4"),
        ([(0, 3), (1, 1), (2, 4)], "3 of 4"),
        ([(0, 3), (1, 1), (2, 4), (2, 4)], "sample 2 twice"),
        ([(0, 3), (1, 1), (2, 4), (4, 1)], "sample 4, the data set 4"),
    ],
)
def test_every_image_has_exactly_one_answer(answers, message):
    with pytest.raises(UserError, match=message):
        measure_accuracy(answers, LABELS)


@pytest.mark.parametrize("label", [-2, -(2**31)])
def test_a_label_that_no_network_has(label):
    with pytest.raises(UserError, match=f"the label {label} for sample 2: a defect of the engine"):
        measure_accuracy([(0, 3), (1, 1), (2, label), (3, -1)], LABELS)


def test_no_images():
    with pytest.raises(UserError, match="0 of 0"):
        measure_accuracy([], LABELS[:0])


def test_the_first_of_repeated_answers_counts():
    answers = [(0, 3), (1, 1), (2, 4), (3, 0), (3, 1)]
    assert measure_accuracy(answers, LABELS, may_repeat=True).good == 3


@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_real_logs(real_run, scenario):
    """The null engine answers 0 to all; MultiStream of 32 fills up its last query."""
    more = {"MULTISTREAMNESS": 32} if scenario == "MultiStream" else {}
    outcome = real_run(SCENARIO=scenario, BUFFER_SIZE=100, **more).outcome
    labels = np.arange(500, dtype=np.int32) % 10
    answers = list(read_answers(outcome.log_dir))
    accuracy = measure_accuracy(answers, labels, may_repeat=scenario == "MultiStream")
    assert (accuracy.good, accuracy.total) == (50, 500)
    assert (len(answers) > 500) == (scenario == "MultiStream")
