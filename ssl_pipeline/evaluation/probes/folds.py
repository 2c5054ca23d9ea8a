"""Choosing dials of a probe on its labelled subjects alone, a subject lying in one fold."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.probes.fitted import Fitted

FOLDS = 4


def cross_validated(
    fits: Callable[[NDArray[np.float32], NDArray[Any]], Sequence[Fitted]],
    train: NDArray[np.float32],
    targets: NDArray[Any],
    subjects: NDArray[np.int64],
    n_classes: int,
) -> NDArray[np.float64] | None:
    """Mean score over folds of each probe that `fits` makes of features (n, D) and targets (n,).

    Balanced accuracy, or less the squared error where there are no classes. None where there are
    fewer subjects than folds, or a fold lacks a class.
    """
    from sklearn.model_selection import GroupKFold

    if len(np.unique(subjects)) < FOLDS:
        return None
    folds = list(GroupKFold(FOLDS).split(train, targets, subjects))
    parts = [targets[part] for fold in folds for part in fold]
    if n_classes and any(len(np.unique(part)) < n_classes for part in parts):
        return None
    scores = [
        [
            _score(fitted(train[held]), targets[held], n_classes)
            for fitted in fits(train[kept], targets[kept])
        ]
        for kept, held in folds
    ]
    mean: NDArray[np.float64] = np.mean(scores, axis=0)
    return mean


def _score(predicted: NDArray[np.float64], targets: NDArray[Any], n_classes: int) -> float:
    from sklearn.metrics import balanced_accuracy_score

    if n_classes:
        return float(balanced_accuracy_score(targets, predicted.argmax(axis=1)))
    error = float(((predicted[:, 0] - targets) ** 2).mean())
    return -error if math.isfinite(error) else -math.inf  # a head may have diverged
