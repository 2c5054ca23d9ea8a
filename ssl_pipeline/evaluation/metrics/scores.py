"""Metrics of predictions, with a jackknife pseudo-value of each subject.

A subject's pseudo-value is n times the metric of all subjects less n - 1 times that of all but this
one. The mean of the pseudo-values is about the metric, and their variance gives its standard error,
whatever the metric (see `statistics.intervals`). Libraries score all predictions at once; here a
metric is computed from sums by subject, so that leaving a subject out costs no second pass. Tests
compare the metrics with scikit-learn's; distances of surfaces are MONAI's (see `surface`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics.metric import (
    AUC,
    BALANCED_ACCURACY,
    BRIER_SCORE,
    CALIBRATION_ERROR,
    HD95_MM,
    MEAN_ABSOLUTE_ERROR,
    MEAN_DICE,
    R_SQUARED,
    SURFACE_DICE,
)

N_CALIBRATION_BINS = 10  # of predictions, by confidence
SubjectClassTable = NDArray[np.float64]  # (subjects, classes)


@dataclass(frozen=True)
class MetricValue:
    """One metric of one cell."""

    value: float
    pseudovalues: NDArray[np.float64]  # (subjects,)


@dataclass(frozen=True)
class CellScores:
    """All metrics of one cell."""

    metrics: dict[str, MetricValue]  # the task's own metric comes first
    per_class: NDArray[np.float64]  # (classes,) of that metric; nan where no subject shows a class


def score_predictions(
    subjects: Sequence[str], predictions: Sequence[Mapping[str, Any]]
) -> CellScores:
    """Metrics of the predictions in a cell's file: classes, numbers, or scans with their Dice."""
    row_subjects = [row["subject"] for row in predictions]
    if "dice" in predictions[0]:
        keys = {MEAN_DICE: "dice", SURFACE_DICE: "surface_dice", HD95_MM: "hd95_mm"}
        scores = {  # null becomes nan
            name: np.array([row[key] for row in predictions], np.float64)
            for name, key in keys.items()
        }
        return score_segmentation(subjects, row_subjects, scores)
    targets = np.array([row["target"] for row in predictions])
    if "value" in predictions[0]:
        return score_regression(
            subjects, row_subjects, targets, np.array([row["value"] for row in predictions])
        )
    return score_classification(
        subjects, row_subjects, targets, np.array([row["probability"] for row in predictions])
    )


def score_classification(
    subjects: Sequence[str],
    row_subjects: Sequence[str],
    targets: NDArray[np.int64],
    probability: NDArray[np.float64],
) -> CellScores:
    """Metrics of predicted probabilities (n, classes) of the subjects `row_subjects` (n,).

    Balanced accuracy; the mean over classes of the area under the one-against-rest ROC curve; the
    Brier score, the squared error summed over classes (Brier 1950), and the expected calibration
    error of the most probable class. Of the last two less is better, and of the calibration error
    no interval is known.
    """
    rows = _subject_rows(subjects, row_subjects)
    hit = probability.argmax(axis=1) == targets
    total, count = np.zeros((2, len(subjects), probability.shape[1]))
    np.add.at(count, (rows, targets), 1)
    np.add.at(total, (rows, targets), hit)
    error = ((probability - np.eye(probability.shape[1])[targets]) ** 2).sum(axis=1)
    squared, each = np.zeros((2, len(subjects), 1))
    np.add.at(squared[:, 0], rows, error)
    np.add.at(each[:, 0], rows, 1)
    metrics = {
        BALANCED_ACCURACY: mean_class_ratio(total, count),
        AUC: auroc(len(subjects), rows, targets, probability),
        BRIER_SCORE: mean_class_ratio(squared, each),
        CALIBRATION_ERROR: MetricValue(
            calibration_error(hit, probability.max(axis=1)), np.full(len(subjects), np.nan)
        ),
    }
    return CellScores(metrics, _per_class(total, count))


def score_regression(
    subjects: Sequence[str],
    row_subjects: Sequence[str],
    targets: NDArray[np.float64],
    values: NDArray[np.float64],
) -> CellScores:
    """Metrics of predicted `values` (n,) of the subjects `row_subjects` (n,).

    R² is 1 less the squared error over that of the mean of the scored subjects' own numbers: 0 is
    no better than a constant, and it has no lower limit. nan where all numbers are equal.
    """
    rows = _subject_rows(subjects, row_subjects)
    count, error, total, squares, apart = np.zeros((5, len(subjects)))
    np.add.at(count, rows, 1)
    np.add.at(error, rows, (targets - values) ** 2)
    np.add.at(total, rows, targets)
    np.add.at(squares, rows, targets**2)
    np.add.at(apart, rows, np.abs(targets - values))
    sums = np.stack([count, error, total, squares])
    whole = sums.sum(axis=1, keepdims=True)
    (value,), without = _r_squared(whole), _r_squared(whole - sums)
    without = np.where(np.isnan(without), value, without)
    pseudovalues = len(subjects) * value - (len(subjects) - 1) * without
    metrics = {
        R_SQUARED: MetricValue(float(value), pseudovalues),
        MEAN_ABSOLUTE_ERROR: mean_class_ratio(apart[:, None], count[:, None]),
    }
    return CellScores(metrics, np.zeros(0))


def _r_squared(sums: SubjectClassTable) -> NDArray[np.float64]:
    """R² of numbers whose count, squared error, sum and sum of squares are the rows of (4, k)."""
    count, error, total, squares = sums
    spread = squares - total**2 / np.maximum(count, 1)
    known = spread > 1e-9 * np.abs(squares)
    shares: NDArray[np.float64] = np.where(known, 1 - error / np.where(known, spread, 1), np.nan)
    return shares


def score_segmentation(
    subjects: Sequence[str], row_subjects: Sequence[str], scores: Mapping[str, NDArray[np.float64]]
) -> CellScores:
    """Metrics of `scores` by name, each (scans, classes), of scans of the subjects `row_subjects`.

    The first is the task's own. Of HD95 less is better, and it is nan for scans that lack a class.
    """
    rows = _subject_rows(subjects, row_subjects)
    tables = {}
    for name, values in scores.items():
        known = ~np.isnan(values)
        total, count = np.zeros((2, len(subjects), values.shape[1]))
        np.add.at(total, rows, np.where(known, values, 0.0))
        np.add.at(count, rows, known)
        tables[name] = total, count
    metrics = {name: mean_class_ratio(*table) for name, table in tables.items()}
    return CellScores(metrics, _per_class(*next(iter(tables.values()))))


def mean_class_ratio(total: SubjectClassTable, count: SubjectClassTable) -> MetricValue:
    """Mean over classes of total / count, both summed over subjects.

    Classes without a count are left out; nan where no class has one.
    """
    subjects = len(total)
    value = _mean_ratio(total.sum(axis=0), count.sum(axis=0))
    without = _mean_ratio(total.sum(axis=0) - total, count.sum(axis=0) - count)
    # Without the only subject that shows any class, the metric is not defined.
    without = np.where(np.isnan(without), value, without)
    return MetricValue(float(value), subjects * value - (subjects - 1) * without)


def auroc(
    n_subjects: int,
    rows: NDArray[np.int64],
    targets: NDArray[np.int64],
    probability: NDArray[np.float64],
) -> MetricValue:
    """Area under the ROC curve, the mean over classes that are both there and not there, or nan.

    `rows` (n,) is the index of the subject of each prediction. A prediction contributes the share
    of the other class that it is ranked correctly against, DeLong's components (DeLong et al.
    1988), summed over a subject's predictions after Obuchowski 1997.
    """
    values, pseudovalues = [], []
    for index in range(probability.shape[1]):
        positive = targets == index
        if 0 < positive.sum() < len(targets):
            right = _rank_shares(probability[:, index], positive)
            value = float(right[positive].mean())
            added = np.zeros(n_subjects)
            for side in (positive, ~positive):
                own = np.bincount(rows[side], minlength=n_subjects)
                left = np.where(own < side.sum(), side.sum() - own, own)
                added += np.bincount(rows[side], right[side] - value, n_subjects) / left
            values.append(value)
            pseudovalues.append(value + (n_subjects - 1) * added)
    if not values:
        return MetricValue(float("nan"), np.full(n_subjects, np.nan))
    return MetricValue(float(np.mean(values)), np.mean(pseudovalues, axis=0))


def _rank_shares(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each prediction, the share of the other class that it is ranked correctly against."""
    from scipy.stats import rankdata

    whole = rankdata(score)
    right = np.zeros(len(score))
    for side in (positive, ~positive):
        below = (whole[side] - rankdata(score[side])) / (~side).sum()
        right[side] = below if side is positive else 1 - below
    return right


def calibration_bins(
    hit: NDArray[np.bool_], confidence: NDArray[np.float64]
) -> list[tuple[float, float, int]]:
    """Bins of predictions by confidence: mean confidence, accuracy and number of each.

    Bins have about equal counts, not equal widths: with few predictions most bins of equal width
    would be empty (Nixon et al. 2019, arXiv:1904.01685).
    """
    order = np.argsort(confidence, kind="stable")
    bins = [each for each in np.array_split(order, N_CALIBRATION_BINS) if len(each)]
    return [(float(confidence[b].mean()), float(hit[b].mean()), len(b)) for b in bins]


def calibration_error(hit: NDArray[np.bool_], confidence: NDArray[np.float64]) -> float:
    """Expected calibration error: mean distance of a bin's confidence from its accuracy."""
    bins = calibration_bins(hit, confidence)
    return sum(number * abs(mean - accuracy) for mean, accuracy, number in bins) / len(hit)


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


def _subject_rows(subjects: Sequence[str], row_subjects: Sequence[str]) -> NDArray[np.int64]:
    place = {subject: row for row, subject in enumerate(subjects)}
    return np.array([place[subject] for subject in row_subjects])


def _mean_ratio(total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis, of tables (..., classes)."""
    known = count > 0.5  # counts are whole, less what subtraction leaves
    shares = np.where(known, total / np.where(known, count, 1), 0)
    classes = known.sum(axis=-1)
    mean: NDArray[np.float64] = np.where(
        classes > 0, shares.sum(axis=-1) / np.maximum(classes, 1), np.nan
    )
    return mean


def _per_class(total: SubjectClassTable, count: SubjectClassTable) -> NDArray[np.float64]:
    return _mean_ratio(total.sum(axis=0)[:, None], count.sum(axis=0)[:, None])
