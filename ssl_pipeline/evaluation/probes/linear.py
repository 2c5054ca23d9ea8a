"""Logistic regression on frozen features, centred and divided by one scale for all of them.

One scale, not one a feature: principal components carry their weight in their spread, and scaling
each to 1 lifts the noise of the last ones to the height of the first. On seven organs of 34 CTs
held out for validation, with labels of 2 / 5 / 20 / 136 subjects, that cost the baseline of pixels
half of its worth (.45 / .63 / .94 / .99 where one scale gives .79 / .88 / .98 / .99) and gained an
encoder nothing (.81 / .89 / .95 / .99 against .82 / .89 / .95 / .99). The strength C is chosen by
cross-validation in which a subject lies in one fold alone, on the labelled training subjects and
nothing else; with fewer than four of them, or where a fold lacks a class, C is 1. Classes are
weighted alike, for the metric is balanced accuracy. The solver takes thousands of small steps, in
which threads wait for each other longer than they compute: one is fastest.
"""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from ssl_pipeline.evaluation.probes.fitted import Fitted
from ssl_pipeline.section import Section

FOLDS = 4


class Linear(Section):
    """Linear probe."""

    TITLE: ClassVar[str] = "linear probe"

    name: Literal["linear"] = "linear"
    strengths: tuple[PositiveFloat, ...] = Field(
        default=(0.001, 0.01, 0.1, 1.0, 10.0),
        min_length=1,
        description="values of C that cross-validation chooses from (larger is freer)",
    )

    def fit(
        self,
        train: NDArray[np.float32],
        targets: NDArray[np.int64],
        subjects: NDArray[np.int64],
        n_classes: int,
        seed: int,
    ) -> Fitted:
        """Learn from `train` (n, D) and `targets` (n,); `subjects` (n,) says whose a row is.

        What comes back maps features (m, D) to probabilities (m, n_classes). A class that `targets`
        lacks gets probability 0.
        """
        present = np.unique(targets)
        if len(present) == 1:
            return lambda test: _spread(np.ones((len(test), 1)), present, n_classes)
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):
            told = _fitted(self._strength(train, targets, subjects), train, targets)
        return lambda test: _spread(told(test), present, n_classes)

    def parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters for features of width `dim`."""
        return (dim + 1) * n_classes

    def _strength(
        self, train: NDArray[np.float32], targets: NDArray[np.int64], subjects: NDArray[np.int64]
    ) -> float:
        from sklearn.metrics import balanced_accuracy_score
        from sklearn.model_selection import GroupKFold

        if len(self.strengths) == 1:
            return self.strengths[0]
        if len(np.unique(subjects)) < FOLDS:
            return 1.0
        folds = list(GroupKFold(FOLDS).split(train, targets, subjects))
        present = np.unique(targets)
        if any(len(np.unique(targets[part])) < len(present) for fold in folds for part in fold):
            return 1.0
        scores = [
            np.mean(
                [
                    balanced_accuracy_score(
                        targets[held],
                        present[
                            _fitted(strength, train[kept], targets[kept])(train[held]).argmax(
                                axis=1
                            )
                        ],
                    )
                    for kept, held in folds
                ]
            )
            for strength in self.strengths
        ]
        return self.strengths[int(np.argmax(scores))]


def _fitted(strength: float, train: NDArray[np.float32], targets: NDArray[np.int64]) -> Fitted:
    """Gives probabilities (m, classes in `targets`)."""
    from sklearn.linear_model import LogisticRegression

    mean = train.mean(axis=0, dtype=np.float64)
    scale = max(float(np.sqrt(((train - mean) ** 2).mean())), 1e-12)
    regression = LogisticRegression(C=strength, max_iter=10_000, class_weight="balanced")
    regression.fit((train - mean) / scale, targets)

    def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = regression.predict_proba((test - mean) / scale)
        return found

    return predict


def _spread(
    probability: NDArray[np.float64], present: NDArray[np.int64], n_classes: int
) -> NDArray[np.float64]:
    """Probabilities of the classes that are `present` among those of all."""
    every = np.zeros((len(probability), n_classes))
    every[:, present] = probability
    return every
