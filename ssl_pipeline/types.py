"""Types of the sizes and positions of volumes."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]  # voxels or patches along three axes
Shape = Triple  # of an array
Spacing = tuple[float, float, float]  # mm between voxels along three axes
Affine = NDArray[np.float64]  # (4, 4), from voxels to mm


T = TypeVar("T")


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Three values, one for each axis, as a tuple of known length."""
    first, second, third = values
    return first, second, third
