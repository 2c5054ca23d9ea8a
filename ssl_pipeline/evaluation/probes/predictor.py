"""Base class of probes, which learn from labelled features of a frozen encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.config.section import Section

# Features (m, blocks, D), the last block first, to probabilities (m, classes), or to numbers (m, 1)
PredictFunction = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of labelled crops, with their targets and subjects."""

    features: NDArray[np.float32]  # (n, blocks, D), the last block first
    targets: NDArray[Any]  # (n,): classes from 0 on, or numbers
    subjects: NDArray[np.int64]  # (n,)
    n_classes: int  # 0 where targets are numbers
    may_choose: NDArray[np.bool_] | None = None  # (n,): by which settings are chosen; None for all

    @property
    def choosing(self) -> "LabelledFeatures":
        """Those by which settings may be chosen."""
        return self if self.may_choose is None else self.select(self.may_choose)

    def select(self, chosen: NDArray[Any]) -> "LabelledFeatures":
        """Some of them, by index or mask."""
        return LabelledFeatures(
            self.features[chosen],
            self.targets[chosen],
            self.subjects[chosen],
            self.n_classes,
            None if self.may_choose is None else self.may_choose[chosen],
        )


class Predictor(Section, ABC):
    """Base class of all probes."""

    TITLE: ClassVar[str]
    FIT_SECONDS: ClassVar[float]  # of one fit

    @property
    def n_fold_draws(self) -> int:
        """Draws of folds in which it chooses hyperparameters; 0 where it chooses none."""
        return 0

    @property
    def n_blocks(self) -> int:
        """Number of last blocks whose features it uses."""
        return 1

    def fit(self, labelled: LabelledFeatures, seed: int) -> PredictFunction:
        """Fit, and return a function from features (m, blocks, D) to probabilities (m, n_classes).

        Classes that are not among the targets get probability 0; a single one gets 1. Without
        classes, features are mapped to numbers (m, 1).
        """
        if not labelled.n_classes:
            return self.learn(labelled, seed)
        present, targets = np.unique(labelled.targets, return_inverse=True)
        fitted: PredictFunction = _certain
        if len(present) > 1:
            fitted = self.learn(replace(labelled, targets=targets, n_classes=len(present)), seed)

        def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
            every = np.zeros((len(test), labelled.n_classes))
            every[:, present] = fitted(test)
            return every

        return predict

    @abstractmethod
    def learn(self, labelled: LabelledFeatures, seed: int) -> PredictFunction:
        """Fit to targets that show every class."""

    def count_parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters: those of a linear head on features (dim,) of the last block."""
        return (dim + 1) * max(1, n_classes)


def _certain(test: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability 1 of a single class."""
    return np.ones((len(test), 1))
