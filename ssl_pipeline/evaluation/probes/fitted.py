"""What a probe is once it has learned: features (m, D) in, probabilities or a number out."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# Features (m, blocks, D), the last block first, to probabilities (m, classes), or to numbers (m, 1)
Fitted = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def among_all(told: Fitted, present: NDArray[np.int64], n_classes: int) -> Fitted:
    """The same, with probability 0 for the classes that are not `present`."""

    def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
        every = np.zeros((len(test), n_classes))
        every[:, present] = told(test)
        return every

    return predict
