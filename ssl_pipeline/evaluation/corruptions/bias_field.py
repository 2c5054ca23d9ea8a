"""A coil that does not receive alike everywhere: MR that is bright on one side."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.by_torchio import torchio, transformed
from ssl_pipeline.evaluation.corruptions.corruption import Corruption, Taken


class BiasField(Corruption):
    """A smooth field of polynomials of third order; levels are the most of a coefficient."""

    TITLE: ClassVar[str] = "bias field"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    LEVELS: ClassVar = (0.1, 0.2, 0.3, 0.4, 0.5)

    name: Literal["bias_field"] = "bias_field"

    def worsen(self, scan: Taken, level: float, rng: np.random.Generator) -> Taken:
        """Coefficients are drawn up to the level."""
        coefficients = rng.uniform(-level, level, 20).tolist()
        return transformed(scan, torchio().BiasField(coefficients, 3))
