"""What a probe is once it has learned: features (m, D) in, probabilities or a number out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Features (m, blocks, D), the last block first, to probabilities (m, classes), or to numbers (m, 1)
Fitted = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def learned(
    targets: NDArray[Any], n_classes: int, learn: Callable[[NDArray[Any], int], Fitted]
) -> Fitted:
    """What `learn` makes of targets (n,), whose classes it is given from 0 on without a gap.

    It is told how many there are, 0 where numbers are learned. Classes that are not among the
    targets get probability 0; one alone needs no learning.
    """
    if not n_classes:
        return learn(targets, 0)
    present, of_present = np.unique(targets, return_inverse=True)
    told = learn(of_present, len(present)) if len(present) > 1 else _sure

    def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
        every = np.zeros((len(test), n_classes))
        every[:, present] = told(test)
        return every

    return predict


def _sure(test: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of one class."""
    return np.ones((len(test), 1))
