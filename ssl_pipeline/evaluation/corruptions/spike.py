"""Spike in the k-space of MR: stripes across the whole scan."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class Spike(Corruption):
    """One spike at a random position; levels are its strength against the largest value."""

    TITLE: ClassVar[str] = "k-space spike"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    REQUIRED_PACKAGE: ClassVar[str] = "torchio"
    LEVELS: ClassVar = (0.2, 0.5, 1.0, 1.5, 2.5)

    name: Literal["spike"] = "spike"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Positions near the centre of k-space give broad stripes."""
        place = rng.uniform(0.3, 0.7, (1, 3))
        return apply_transform(scan, import_torchio().Spike(place, level))
