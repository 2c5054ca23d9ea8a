"""Ghosts of MR along the direction that is encoded by phase: pulses, breath, flow."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class Ghosting(Corruption):
    """Four ghosts along a drawn axis; levels are their strength."""

    TITLE: ClassVar[str] = "ghosts"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    LEVELS: ClassVar = (0.25, 0.5, 0.75, 1.0, 1.5)

    name: Literal["ghosting"] = "ghosting"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Lines of k-space are changed but for its middle."""
        axis = int(rng.integers(3))
        return apply_transform(scan, import_torchio().Ghosting(4, axis, level, 0.02))
