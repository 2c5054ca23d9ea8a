"""How good predictions are.

Scores are kept as two tables over (subjects, classes), a sum and a count, because both metrics are
a mean over classes of a ratio of sums over subjects: recall (correct over all) for balanced
accuracy, Dice summed over the scans where it is defined for mean Dice. Resampling subjects is then
a product of weights and tables, and one bootstrap serves both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """What one cell scored."""

    total: NDArray[np.float64]  # (subjects, classes)
    count: NDArray[np.float64]  # (subjects, classes)
    extras: dict[str, float] = field(default_factory=dict)  # further figures over all subjects


def scored(subjects: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> Scored:
    """Tables of the predictions in a cell's file: of classes, or of scans with their Dice."""
    of = [row["subject"] for row in predictions]
    if "dice" in predictions[0]:
        scores = np.array([row["dice"] for row in predictions], np.float64)  # null becomes nan
        return segmentation(subjects, of, scores)
    targets = np.array([row["target"] for row in predictions])
    return classification(
        subjects, of, targets, np.array([row["probability"] for row in predictions])
    )


def classification(
    subjects: Sequence[str],
    of: Sequence[str],
    targets: NDArray[np.int64],
    probability: NDArray[np.float64],
) -> Scored:
    """Recall tables of predictions (n, classes) whose rows belong to the subjects `of` (n,).

    `extras` holds the accuracy and, where a class is both there and not there, the mean over such
    classes of the area under the one-against-rest ROC curve.
    """
    place = {subject: row for row, subject in enumerate(subjects)}
    rows = np.array([place[subject] for subject in of])
    count = np.zeros((len(subjects), probability.shape[1]))
    total = np.zeros_like(count)
    hit = probability.argmax(axis=1) == targets
    np.add.at(count, (rows, targets), 1)
    np.add.at(total, (rows, targets), hit)
    return Scored(
        total, count, {"accuracy": float(hit.mean()), "auc": macro_auc(targets, probability)}
    )


def macro_auc(targets: NDArray[np.int64], probability: NDArray[np.float64]) -> float:
    """Mean one-against-rest area under the ROC curve of the classes where it is defined, or nan."""
    from sklearn.metrics import roc_auc_score

    areas = [
        roc_auc_score(targets == index, probability[:, index])
        for index in range(probability.shape[1])
        if 0 < np.count_nonzero(targets == index) < len(targets)
    ]
    return float(np.mean(areas)) if areas else float("nan")


def dice(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], drawn: Sequence[bool], ignored: int
) -> list[float]:
    """Dice of classes 1 to len(drawn) of two label maps of one shape.

    Voxels where the truth is `ignored` do not count. nan for a class that neither map shows, and
    for one that was not drawn.
    """
    counted = truth != ignored
    found = []
    for index, is_drawn in enumerate(drawn, start=1):
        a, b = (predicted == index) & counted, truth == index
        size = np.count_nonzero(a) + np.count_nonzero(b)
        known = is_drawn and size > 0
        found.append(2 * float(np.count_nonzero(a & b)) / size if known else float("nan"))
    return found


def segmentation(subjects: Sequence[str], of: Sequence[str], scores: NDArray[np.float64]) -> Scored:
    """Tables of the Dice `scores` (scans, classes) of scans that belong to the subjects `of`."""
    place = {subject: row for row, subject in enumerate(subjects)}
    rows = np.array([place[subject] for subject in of])
    known = ~np.isnan(scores)
    total = np.zeros((len(subjects), scores.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, rows, np.where(known, scores, 0.0))
    np.add.at(count, rows, known)
    return Scored(total, count)
