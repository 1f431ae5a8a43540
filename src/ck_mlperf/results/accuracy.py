"""Accuracy of a test: LoadGen's accuracy log against the labels of the data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ck_mlperf.common.errors import UserError
from ck_mlperf.results.record import Accuracy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def measure_accuracy(
    answers: Iterable[tuple[int, int]],
    labels: NDArray[np.int32],
    top5: NDArray[np.int32] | None = None,
    may_repeat: bool = False,
) -> Accuracy:
    """Compare `answers`, (sample index, label) pairs from `logs.read_answers`, with `labels`.

    labels: int32 [n], one for each image of the test. top5: int32 [n, 5] by sample index, or None.
    may_repeat: in MultiStream LoadGen fills the last query of a loaded set with samples again; as
    in MLPerf's own script the first answer counts.
    Raises UserError unless every image has an answer, and exactly one where they may not repeat,
    and for a label below -1 (a background class), which no network has.
    """
    import numpy as np

    total = len(labels)
    best = np.zeros(total, np.int64)
    is_seen = np.zeros(total, np.bool_)
    for index, label in answers:
        if index >= total:
            raise UserError(
                f"LoadGen's accuracy log has sample {index}, the data set {total} images: the log "
                "is of another run. Run the accuracy test again"
            )
        if is_seen[index]:
            if may_repeat:
                continue
            raise UserError(
                f"LoadGen's accuracy log has sample {index} twice: it is damaged, or of another "
                "scenario. Run the accuracy test again"
            )
        if label < -1:
            raise UserError(
                f"LoadGen's accuracy log has the label {label} for sample {index}: a defect of the "
                "engine, whose numbers were wrapped or not finite"
            )
        is_seen[index] = True
        best[index] = label
    if not total or not is_seen.all():
        raise UserError(
            f"LoadGen's accuracy log has answers for {is_seen.sum()} of {total} images. Run the "
            "accuracy test again"
        )
    if top5 is not None and top5.shape != (total, 5):
        raise ValueError(f"want top5 [{total}, 5], got {top5.shape}")
    good = int((best == labels).sum())
    good_top5 = None if top5 is None else int((top5 == labels[:, None]).any(axis=1).sum())
    return Accuracy(
        top1_percent=100 * good / total,
        top5_percent=None if good_top5 is None else 100 * good_top5 / total,
        good=good,
        total=total,
    )
