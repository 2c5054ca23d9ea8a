"""Anisotropic resolution of MR: thick slices along one axis.

TorchIO has this too, but drops slices where a scanner averages them: of a scan of 25 slices every
fifth one changed it less than every fourth.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.thick_slices import thicken_slices


class Anisotropy(Corruption):
    """Averaging of slices; levels are the number of stored slices in a thick one."""

    TITLE: ClassVar[str] = "thick slices"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    LEVELS: ClassVar = (2.0, 3.0, 4.0, 5.0, 6.0)

    name: Literal["anisotropy"] = "anisotropy"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Average along a random axis."""
        return replace(scan, image=thicken_slices(scan.image, int(level), int(rng.integers(3))))
