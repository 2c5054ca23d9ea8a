"""Ghosting of MR along the phase-encoding direction, by pulsation, breathing or flow."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class Ghosting(Corruption):
    """Four ghosts along a random axis; levels are their strength."""

    TITLE: ClassVar[str] = "ghosts"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    REQUIRED_PACKAGE: ClassVar[str] = "torchio"
    LEVELS: ClassVar = (0.25, 0.5, 0.75, 1.0, 1.5)

    name: Literal["ghosting"] = "ghosting"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Change lines of k-space but for its centre."""
        axis = int(rng.integers(3))
        return apply_transform(scan, import_torchio().Ghosting(4, axis, level, 0.02))
