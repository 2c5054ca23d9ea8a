"""Logistic or ridge regression on frozen features, centred and divided by one scale for all.

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

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from ssl_pipeline.evaluation.probes.fitted import Fitted, learned
from ssl_pipeline.evaluation.probes.folds import cross_validated
from ssl_pipeline.section import Section

Fit = Callable[[float, NDArray[np.float32], NDArray[Any]], Fitted]


class Linear(Section):
    """Linear probe."""

    TITLE: ClassVar[str] = "linear probe"

    SECONDS: ClassVar[float] = 0.2  # of a fit
    deepest: ClassVar[int] = 1  # of the last blocks, what it reads

    name: Literal["linear"] = "linear"
    strengths: tuple[PositiveFloat, ...] = Field(
        default=(0.001, 0.01, 0.1, 1.0, 10.0),
        min_length=1,
        description="values of C that cross-validation chooses from (larger is freer)",
    )

    def fit(
        self,
        train: NDArray[np.float32],
        targets: NDArray[Any],
        subjects: NDArray[np.int64],
        n_classes: int,
        seed: int,
    ) -> Fitted:
        """Learn from `train` (n, blocks, D) and `targets` (n,), rows of `subjects` (n,).

        What comes back maps features (m, blocks, D) to probabilities (m, n_classes); without
        classes, to numbers (m, 1). A class that
        `targets` lacks gets probability 0.
        """
        from threadpoolctl import threadpool_limits

        def learn(told: NDArray[Any], number: int) -> Fitted:
            return self._best(_logistic if number else _ridge, train, told, subjects, number)

        with threadpool_limits(1, "blas"):
            return learned(targets, n_classes, learn)

    def parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters for features of width `dim`."""
        return (dim + 1) * max(1, n_classes)

    def _best(
        self,
        fit: Fit,
        train: NDArray[np.float32],
        targets: NDArray[Any],
        subjects: NDArray[np.int64],
        n_classes: int,
    ) -> Fitted:
        """Fitted with the strength that cross-validation chooses, to all."""
        strength = self.strengths[0]
        if len(self.strengths) > 1:
            scores = cross_validated(
                lambda known, told: [fit(each, known, told) for each in self.strengths],
                train,
                targets,
                subjects,
                n_classes,
            )
            strength = 1.0 if scores is None else self.strengths[int(np.argmax(scores))]
        return fit(strength, train, targets)


def _logistic(strength: float, train: NDArray[np.float32], targets: NDArray[Any]) -> Fitted:
    """Gives probabilities (m, classes in `targets`)."""
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=strength, max_iter=10_000, class_weight="balanced")
    scaled = _scaling(train)
    regression.fit(scaled(train), targets)

    def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = regression.predict_proba(scaled(test))
        return found

    return predict


def _ridge(strength: float, train: NDArray[np.float32], targets: NDArray[Any]) -> Fitted:
    """Gives numbers (m, 1)."""
    from sklearn.linear_model import Ridge

    regression, scaled = Ridge(alpha=1 / strength), _scaling(train)
    regression.fit(scaled(train), targets)

    def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = regression.predict(scaled(test))[:, None]
        return found

    return predict


def _scaling(train: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Of the last block (n, D), the first of `train` (n, blocks, D)."""
    mean = train[:, 0].mean(axis=0, dtype=np.float64)
    scale = max(float(np.sqrt(((train[:, 0] - mean) ** 2).mean())), 1e-12)
    return lambda features: (features[:, 0] - mean) / scale
