"""A spike in the k-space of MR: stripes across the whole scan."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class Spike(Corruption):
    """One spike at a drawn place; levels are its strength against the largest value."""

    TITLE: ClassVar[str] = "k-space spike"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    LEVELS: ClassVar = (0.2, 0.5, 1.0, 1.5, 2.5)

    name: Literal["spike"] = "spike"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Places near the middle of k-space make broad stripes."""
        place = rng.uniform(0.3, 0.7, (1, 3))
        return apply_transform(scan, import_torchio().Spike(place, level))
