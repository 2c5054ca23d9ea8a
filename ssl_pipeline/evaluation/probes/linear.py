"""Linear probe: logistic or ridge regression on features, centred and divided by one scale.

One scale, not one a feature: the variance of a principal component is its weight, and scaling each
to 1 lifts the noise of the last ones to the level of the first. On seven organs of 34 CTs held out
for validation, with labels of 2 / 5 / 20 / 136 subjects, that lowered the balanced accuracy of the
baseline of pixels to .45 / .63 / .94 / .99 from .79 / .88 / .98 / .99 with one scale, and gained an
encoder nothing (.81 / .89 / .95 / .99 against .82 / .89 / .95 / .99). The strength C is chosen by
cross-validation by subject (see `folds`), on the labelled training subjects alone; with fewer than
four of them, or where every draw of folds lacks a class, C is 1. Classes are weighted equally, for
the metric is balanced accuracy. The solver takes thousands of small steps, in which threads wait
for each other longer than they compute: one thread is fastest.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt

from ssl_pipeline.evaluation.probes.folds import FOLD_DRAWS, choose_candidate
from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures, PredictFunction, Predictor

DEFAULT_C = 1.0  # where subjects are too few for folds


class Linear(Predictor):
    """Linear probe."""

    TITLE: ClassVar[str] = "linear probe"
    FIT_SECONDS: ClassVar[float] = 1.0

    name: Literal["linear"] = "linear"
    c_values: tuple[PositiveFloat, ...] = Field(
        default=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        min_length=1,
        description="values of C that cross-validation chooses from (larger is less regularised)",
    )
    fold_draws: PositiveInt = Field(
        FOLD_DRAWS, description="times that subjects are divided into folds anew, to choose C"
    )

    @property
    def n_fold_draws(self) -> int:
        """Draws of folds in which it chooses C; 0 where one alone is given."""
        return self.fold_draws if len(self.c_values) > 1 else 0

    def learn(self, labelled: LabelledFeatures, seed: int) -> PredictFunction:
        """Fit to all labelled features, with the strength that cross-validation chooses."""
        from threadpoolctl import threadpool_limits

        fit = _logistic if labelled.n_classes else _ridge
        strengths = sorted(self.c_values)
        with threadpool_limits(1, "blas"):
            if len(strengths) == 1:
                return fit(strengths[0], labelled)
            chosen = choose_candidate(
                lambda part: [fit(each, part) for each in strengths], labelled, self.fold_draws
            )
            return fit(DEFAULT_C if chosen is None else strengths[chosen], labelled)


def _logistic(strength: float, labelled: LabelledFeatures) -> PredictFunction:
    """Logistic regression: probabilities (m, classes)."""
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=strength, max_iter=10_000, class_weight="balanced")
    scaled = fit_scaler(labelled.features[:, 0])
    regression.fit(scaled(labelled.features[:, 0]), labelled.targets)

    def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = regression.predict_proba(scaled(test[:, 0]))
        return found

    return predict


def _ridge(strength: float, labelled: LabelledFeatures) -> PredictFunction:
    """Ridge regression: numbers (m, 1)."""
    from sklearn.linear_model import Ridge

    regression, scaled = Ridge(alpha=1 / strength), fit_scaler(labelled.features[:, 0])
    regression.fit(scaled(labelled.features[:, 0]), labelled.targets)

    def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = regression.predict(scaled(test[:, 0]))[:, None]
        return found

    return predict


def fit_scaler(rows: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Function that centres features (n, D) at the mean of `rows` and divides them by one scale."""
    mean = rows.mean(axis=0, dtype=np.float64)
    scale = max(float(np.sqrt(((rows - mean) ** 2).mean())), 1e-12)
    return lambda features: (features - mean) / scale
