"""Metrics of predicted label maps: Dice of two maps, and scores over scans and subjects."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics.scores import (
    CellScores,
    class_ratios,
    mean_class_ratio,
    subject_rows,
)


def score_segmentation(
    subjects: Sequence[str], row_subjects: Sequence[str], scores: Mapping[str, NDArray[np.float64]]
) -> CellScores:
    """Metrics of `scores` by name, each (scans, classes), of scans of the subjects `row_subjects`.

    The first is the task's own. Of HD95 less is better, and it is nan for scans that lack a class.
    """
    rows = subject_rows(subjects, row_subjects)
    tables = {}
    for name, values in scores.items():
        known = ~np.isnan(values)
        total, count = np.zeros((2, len(subjects), values.shape[1]))
        np.add.at(total, rows, np.where(known, values, 0.0))
        np.add.at(count, rows, known)
        tables[name] = total, count
    metrics = {name: mean_class_ratio(*table) for name, table in tables.items()}
    return CellScores(metrics, class_ratios(*next(iter(tables.values()))))


def dice(
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    annotated: Sequence[bool],
    ignore_index: int,
) -> list[float]:
    """Dice of classes 1 to len(annotated) of two label maps of one shape.

    Voxels where the truth is `ignore_index` do not count. nan for a class that neither map shows,
    and for one that is not annotated.
    """
    counted = truth != ignore_index
    found = []
    for index, is_annotated in enumerate(annotated, start=1):
        a, b = (predicted == index) & counted, truth == index
        size = np.count_nonzero(a) + np.count_nonzero(b)
        known = is_annotated and size > 0
        found.append(2 * float(np.count_nonzero(a & b)) / size if known else float("nan"))
    return found
