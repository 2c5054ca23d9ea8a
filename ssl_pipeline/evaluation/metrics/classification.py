"""Metrics of predicted probabilities of classes: accuracy, ROC curve and calibration."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics.metric import (
    AUC,
    BALANCED_ACCURACY,
    BRIER_SCORE,
    CALIBRATION_ERROR,
)
from ssl_pipeline.evaluation.metrics.scores import (
    CellScores,
    MetricValue,
    class_ratios,
    mean_class_ratio,
    subject_rows,
)

N_CALIBRATION_BINS = 10  # of predictions, by confidence


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
    rows = subject_rows(subjects, row_subjects)
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
    return CellScores(metrics, class_ratios(total, count))


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
