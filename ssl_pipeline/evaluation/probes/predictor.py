"""What a probe is: it learns from labelled features of a frozen encoder, and tells of others."""

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
    """Crops that are learned from."""

    features: NDArray[np.float32]  # (n, blocks, D), the last block first
    targets: NDArray[Any]  # (n,): classes from 0 on, or numbers
    subjects: NDArray[np.int64]  # (n,)
    n_classes: int  # 0 where targets are numbers

    def select(self, chosen: NDArray[Any]) -> "LabelledFeatures":
        """Some of them, by index or mark."""
        return LabelledFeatures(
            self.features[chosen], self.targets[chosen], self.subjects[chosen], self.n_classes
        )


class Predictor(Section, ABC):
    """The part that all probes share."""

    TITLE: ClassVar[str]
    FIT_SECONDS: ClassVar[float]  # of a fit
    USES_FOLDS: ClassVar[bool] = True  # whether it chooses dials in folds

    @property
    def n_blocks(self) -> int:
        """How many of the last blocks it reads."""
        return 1

    def fit(self, labelled: LabelledFeatures, seed: int) -> PredictFunction:
        """What it learned: features (m, blocks, D) to probabilities (m, n_classes).

        Classes that are not among the targets get probability 0; one alone needs no learning.
        Without classes, features go to numbers (m, 1).
        """
        if not labelled.n_classes:
            return self.learn(labelled, seed)
        present, targets = np.unique(labelled.targets, return_inverse=True)
        told: PredictFunction = _certain
        if len(present) > 1:
            told = self.learn(replace(labelled, targets=targets, n_classes=len(present)), seed)

        def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
            every = np.zeros((len(test), labelled.n_classes))
            every[:, present] = told(test)
            return every

        return predict

    @abstractmethod
    def learn(self, labelled: LabelledFeatures, seed: int) -> PredictFunction:
        """Learn from targets that show every class."""

    def count_parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters: those of a linear head on features (dim,) of the last block."""
        return (dim + 1) * max(1, n_classes)


def _certain(test: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of one class."""
    return np.ones((len(test), 1))
