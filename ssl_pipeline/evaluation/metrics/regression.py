"""Metrics of predicted numbers: R² and the mean absolute error."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics.metric import MEAN_ABSOLUTE_ERROR, R_SQUARED
from ssl_pipeline.evaluation.metrics.scores import (
    CellScores,
    MetricValue,
    SubjectClassTable,
    mean_class_ratio,
    subject_rows,
)


def score_regression(
    subjects: Sequence[str],
    row_subjects: Sequence[str],
    targets: NDArray[np.float64],
    values: NDArray[np.float64],
) -> CellScores:
    """Metrics of predicted `values` (n,) of the subjects `row_subjects` (n,).

    R² is 1 less the squared error over that of the mean of the scored subjects' own numbers: 0 is
    no better than a constant, and it has no lower limit. nan where all numbers are equal, or so
    large that their squares are not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rows = subject_rows(subjects, row_subjects)
        count, error, total, squares, apart = np.zeros((5, len(subjects)))
        np.add.at(count, rows, 1)
        np.add.at(error, rows, (targets - values) ** 2)
        np.add.at(total, rows, targets)
        np.add.at(squares, rows, targets**2)
        np.add.at(apart, rows, np.abs(targets - values))
        sums = np.stack([count, error, total, squares])
        whole = sums.sum(axis=1, keepdims=True)
        (value,), without = _r_squared(whole), _r_squared(whole - sums)
        metrics = {
            R_SQUARED: MetricValue.from_jackknife(value, without),
            MEAN_ABSOLUTE_ERROR: mean_class_ratio(apart[:, None], count[:, None]),
        }
    return CellScores(metrics, np.zeros(0))


def _r_squared(sums: SubjectClassTable) -> NDArray[np.float64]:
    """R² of numbers whose count, squared error, sum and sum of squares are the rows of (4, k)."""
    count, error, total, squares = sums
    spread = squares - total**2 / np.maximum(count, 1)
    known = spread > 1e-9 * np.abs(squares)
    known &= np.isfinite(error) & np.isfinite(spread)
    shares: NDArray[np.float64] = np.where(known, 1 - error / np.where(known, spread, 1), np.nan)
    return shares
