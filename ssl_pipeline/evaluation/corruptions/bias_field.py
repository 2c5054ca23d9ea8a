"""Bias field of MR: inhomogeneous sensitivity of the receive coil."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class BiasField(Corruption):
    """A smooth field of polynomials of third order; levels are the largest coefficient."""

    TITLE: ClassVar[str] = "bias field"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    REQUIRED_PACKAGE: ClassVar[str] = "torchio"
    LEVELS: ClassVar = (0.1, 0.2, 0.3, 0.4, 0.5)

    name: Literal["bias_field"] = "bias_field"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Multiply by a field whose coefficients are drawn up to the level."""
        coefficients = rng.uniform(-level, level, 20).tolist()
        return apply_transform(scan, import_torchio().BiasField(coefficients, 3))
