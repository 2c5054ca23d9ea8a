"""What a simple classifier is once it has learned: features (m, D) in, probabilities out."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# (m, D) to (m, classes)
Fitted = Callable[[NDArray[np.float32]], NDArray[np.float64]]
