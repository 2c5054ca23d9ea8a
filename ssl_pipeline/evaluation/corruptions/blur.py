"""Blur of MR: lower resolution."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class Blur(Corruption):
    """Gaussian blur along all axes; levels are its standard deviation in mm."""

    TITLE: ClassVar[str] = "blur"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    REQUIRED_PACKAGE: ClassVar[str] = "torchio"
    LEVELS: ClassVar = (0.75, 1.0, 1.5, 2.0, 3.0)

    name: Literal["blur"] = "blur"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Blur equally along all axes."""
        return apply_transform(scan, import_torchio().Blur((level, level, level)))
