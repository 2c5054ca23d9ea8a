"""Scores of predictions: values of metrics with a jackknife pseudo-value of each subject.

A subject's pseudo-value is n times the metric of all subjects less n - 1 times that of all but this
one. The mean of the pseudo-values is about the metric, and their variance gives its standard error,
whatever the metric (see `statistics.intervals`). Libraries score all predictions at once; here a
metric is computed from sums by subject, so that leaving a subject out costs no second pass. Tests
compare the metrics with scikit-learn's; distances of surfaces are MONAI's (see `surface`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SubjectClassTable = NDArray[np.float64]  # (subjects, classes)
Predictions = Sequence[Mapping[str, Any]]  # rows of a cell's file


@dataclass(frozen=True)
class MetricValue:
    """One metric of one cell."""

    value: float
    pseudovalues: NDArray[np.float64]  # (subjects,)

    @classmethod
    def from_jackknife(cls, value: float, without: NDArray[np.float64]) -> "MetricValue":
        """From the metric of all subjects, and `without` each of them (subjects,).

        Where it is not defined without a subject, as without the only one that shows any class, it
        is taken to be that of all.
        """
        subjects, defined = len(without), np.where(np.isnan(without), value, without)
        return cls(float(value), subjects * value - (subjects - 1) * defined)


@dataclass(frozen=True)
class CellScores:
    """All metrics of one cell."""

    metrics: dict[str, MetricValue]  # the task's own metric comes first
    per_class: NDArray[np.float64]  # (classes,) of that metric; nan where no subject shows a class

    @property
    def primary(self) -> MetricValue:
        """The task's own metric."""
        return next(iter(self.metrics.values()))


# Scores the predictions of the scored subjects.
ScoreFunction = Callable[[Sequence[str], Predictions], CellScores]


def mean_class_ratio(total: SubjectClassTable, count: SubjectClassTable) -> MetricValue:
    """Mean over classes of total / count, both summed over subjects.

    Classes without a count are left out; nan where no class has one.
    """
    value = _mean_ratio(total.sum(axis=0), count.sum(axis=0))
    without = _mean_ratio(total.sum(axis=0) - total, count.sum(axis=0) - count)
    return MetricValue.from_jackknife(value.item(), without)


def class_ratios(total: SubjectClassTable, count: SubjectClassTable) -> NDArray[np.float64]:
    """Total / count of each class (classes,), both summed over subjects; nan without a count."""
    return _mean_ratio(total.sum(axis=0)[:, None], count.sum(axis=0)[:, None])


def subject_rows(subjects: Sequence[str], row_subjects: Sequence[str]) -> NDArray[np.int64]:
    """Index into `subjects` of the subject of each prediction (n,)."""
    index = {subject: row for row, subject in enumerate(subjects)}
    return np.array([index[subject] for subject in row_subjects])


def _mean_ratio(total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis, of tables (..., classes)."""
    known = count > 0.5  # counts are whole, less what subtraction leaves
    shares = np.where(known, total / np.where(known, count, 1), 0)
    classes = known.sum(axis=-1)
    mean: NDArray[np.float64] = np.where(
        classes > 0, shares.sum(axis=-1) / np.maximum(classes, 1), np.nan
    )
    return mean
