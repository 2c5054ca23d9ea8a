"""Pairing policies: which scan the second view of a sample is cropped from."""

from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Pairing(Protocol):
    """Chooses the scan of a sample's second view."""

    def partner(self, entry_index: int, rng: np.random.Generator) -> int:
        """The entry that is paired with one of the sampler's list; `rng` is the sample's own.

        Another entry gives the second view a block of its own, at the same place as a fraction of
        its volume. The views then share the frame of their blocks' centres.
        """


class SameScan:
    """Both views are cropped from one block of one scan."""

    def partner(self, entry_index: int, rng: np.random.Generator) -> int:
        """The entry itself."""
        return entry_index


SAME_SCAN = SameScan()
