"""Choice of a probe's hyperparameters on its labelled subjects, in repeated folds by subject.

One draw of folds decides little among few subjects: of 61, one chose a strength of regularisation
that was worth .27 where another was worth .47. So folds are drawn several times, stratified, and
of candidates that are equally good the least regularised wins: what is too strong loses a whole
class, what is too weak loses a little. In simulated tasks of 30 subjects this lost .001 to .005 of
balanced accuracy against the best strength, .02 at most; one draw of folds and the first of equal
ones .007 to .025, .05 at most; one standard error below the best, the most regularised, .09 at
most.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures, PredictFunction

N_FOLDS = 4
FOLD_DRAWS = 3  # by default
TIE = 1e-9  # a difference of mean scores that is rounding
N_STRATA = 4  # that numbers are divided into, so that each fold has low and high ones

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # training rows and held-out rows


def choose_candidate(
    fit_candidates: Callable[[LabelledFeatures], Sequence[PredictFunction]],
    labelled: LabelledFeatures,
    draws: int,
) -> int | None:
    """Index of the best of the probes that `fit_candidates` returns, the last of equal ones.

    Candidates come in the order of falling regularisation. The best has the highest mean balanced
    accuracy over the folds of all `draws`, or the least squared error where there are no classes.
    Only rows that may choose are in the folds. None where folds are not possible.
    """
    labelled = labelled.choosing
    folds = subject_folds(labelled.targets, labelled.subjects, labelled.n_classes, draws)
    if not folds:
        return None
    scores = [
        [_score(fitted, labelled.select(held)) for fitted in fit_candidates(labelled.select(kept))]
        for kept, held in folds
    ]
    mean = np.mean(scores, axis=0)
    return int(np.flatnonzero(mean >= mean.max() - TIE)[-1])


def subject_folds(
    targets: NDArray[Any], subjects: NDArray[np.int64], n_classes: int, draws: int
) -> list[Fold]:
    """Folds of all draws; none where there are fewer subjects than folds, or one lacks a class.

    A draw that leaves a fold without a class is left out. Draws depend on targets and subjects
    alone, so that an encoder and a baseline are compared in the same folds.
    """
    drawn = _complete_draws(targets, subjects, n_classes, draws)
    return [fold for folds in drawn for fold in folds]


def has_folds(
    targets: NDArray[Any], subjects: NDArray[np.int64], n_classes: int, draws: int
) -> bool:
    """Whether `subject_folds` finds any; no more are drawn than it takes to tell."""
    return any(True for _ in _complete_draws(targets, subjects, n_classes, draws))


def _complete_draws(
    targets: NDArray[Any], subjects: NDArray[np.int64], n_classes: int, draws: int
) -> Iterator[list[Fold]]:
    """The draws, one after the other, in which no fold lacks a class."""
    if len(np.unique(subjects)) < N_FOLDS:
        return
    strata = targets if n_classes else _strata(targets)
    for draw in range(draws):
        folds = _draw_folds(strata, subjects, draw)
        if not n_classes or all(_has_classes(targets, fold, n_classes) for fold in folds):
            yield folds


def _draw_folds(strata: NDArray[Any], subjects: NDArray[np.int64], draw: int) -> list[Fold]:
    """One division of the subjects, each fold with about equal shares of the strata."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    if np.unique(strata, return_counts=True)[1].max() < N_FOLDS:  # too few to be stratified
        return list(GroupKFold(N_FOLDS).split(strata, strata, subjects))
    splitter = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=draw)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(splitter.split(strata, strata, subjects))


def _has_classes(targets: NDArray[Any], fold: Fold, n_classes: int) -> bool:
    return all(len(np.unique(targets[part])) == n_classes for part in fold)


def _strata(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The quarter of the numbers that each lies in."""
    borders = np.quantile(numbers, np.linspace(0, 1, N_STRATA + 1)[1:-1])
    return np.searchsorted(borders, numbers)


def _score(predict: PredictFunction, held_out: LabelledFeatures) -> float:
    from sklearn.metrics import balanced_accuracy_score

    predicted = predict(held_out.features)
    if held_out.n_classes:
        return float(balanced_accuracy_score(held_out.targets, predicted.argmax(axis=1)))
    error = float(((predicted[:, 0] - held_out.targets) ** 2).mean())
    return -error if math.isfinite(error) else -math.inf  # a head may have diverged
