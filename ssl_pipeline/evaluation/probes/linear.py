"""Logistic regression on standardised frozen features.

Its strength C is chosen by cross-validation in which a subject lies in one fold alone, on the
labelled training subjects and nothing else. With fewer than four of them, or where a fold lacks a
class, C is 1. Classes are weighted alike, for the metric is balanced accuracy. The solver takes
thousands of small steps, in which threads wait for each other longer than they compute: one is
fastest.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from ssl_pipeline.section import Section

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FOLDS = 4


class Linear(Section):
    """Linear probe."""

    name: Literal["linear"] = "linear"
    strengths: tuple[PositiveFloat, ...] = Field(
        default=(0.001, 0.01, 0.1, 1.0, 10.0),
        min_length=1,
        description="values of C that cross-validation chooses from (larger is freer)",
    )

    def predict(
        self,
        train: NDArray[np.float32],
        targets: NDArray[np.int64],
        subjects: NDArray[np.int64],
        test: NDArray[np.float32],
        n_classes: int,
        seed: int,
    ) -> NDArray[np.float64]:
        """Probabilities (m, n_classes) of `test` (m, D), from `train` (n, D) and `targets` (n,).

        `subjects` (n,) numbers whom a row belongs to. A class that `targets` lacks gets probability
        0.
        """
        probability = np.zeros((len(test), n_classes))
        present = np.unique(targets)
        if len(present) == 1:
            probability[:, present[0]] = 1
            return probability
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):
            strength = self._strength(train, targets, subjects)
            model = _model(strength).fit(train, targets)
            probability[:, present] = model.predict_proba(test)
        return probability

    def parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters for features of width `dim`."""
        return (dim + 1) * n_classes

    def _strength(
        self, train: NDArray[np.float32], targets: NDArray[np.int64], subjects: NDArray[np.int64]
    ) -> float:
        from sklearn.metrics import balanced_accuracy_score
        from sklearn.model_selection import GroupKFold

        if len(np.unique(subjects)) < FOLDS or len(self.strengths) == 1:
            return 1.0 if len(self.strengths) > 1 else self.strengths[0]
        folds = list(GroupKFold(FOLDS).split(train, targets, subjects))
        n_classes = len(np.unique(targets))
        if any(len(np.unique(targets[part])) < n_classes for fold in folds for part in fold):
            return 1.0
        scores = [
            np.mean(
                [
                    balanced_accuracy_score(
                        targets[held],
                        _model(strength).fit(train[kept], targets[kept]).predict(train[held]),
                    )
                    for kept, held in folds
                ]
            )
            for strength in self.strengths
        ]
        return self.strengths[int(np.argmax(scores))]


def _model(strength: float) -> "Pipeline":
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=strength, max_iter=10_000, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression)
