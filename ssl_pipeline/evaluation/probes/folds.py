"""Cross-validation of a probe's hyperparameters on its labelled subjects, by subject."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures, PredictFunction

N_FOLDS = 4


def cross_validate(
    fit_candidates: Callable[[LabelledFeatures], Sequence[PredictFunction]],
    labelled: LabelledFeatures,
) -> NDArray[np.float64] | None:
    """Mean score over folds of each probe that `fit_candidates` returns.

    Balanced accuracy, or minus the squared error where there are no classes. None where there are
    fewer subjects than folds, or a fold lacks a class.
    """
    folds = subject_folds(labelled.targets, labelled.subjects, labelled.n_classes)
    if not folds:
        return None
    scores = [
        [_score(fitted, labelled.select(held)) for fitted in fit_candidates(labelled.select(kept))]
        for kept, held in folds
    ]
    mean: NDArray[np.float64] = np.mean(scores, axis=0)
    return mean


def subject_folds(
    targets: NDArray[Any], subjects: NDArray[np.int64], n_classes: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Training rows and held-out rows of each fold; none where folds are not possible."""
    from sklearn.model_selection import GroupKFold

    if len(np.unique(subjects)) < N_FOLDS:
        return []
    folds = list(GroupKFold(N_FOLDS).split(targets, targets, subjects))
    parts = [targets[part] for fold in folds for part in fold]
    if n_classes and any(len(np.unique(part)) < n_classes for part in parts):
        return []
    return folds


def _score(predict: PredictFunction, held_out: LabelledFeatures) -> float:
    from sklearn.metrics import balanced_accuracy_score

    predicted = predict(held_out.features)
    if held_out.n_classes:
        return float(balanced_accuracy_score(held_out.targets, predicted.argmax(axis=1)))
    error = float(((predicted[:, 0] - held_out.targets) ** 2).mean())
    return -error if math.isfinite(error) else -math.inf  # a head may have diverged
