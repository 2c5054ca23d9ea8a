"""MR of less resolution."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.by_torchio import torchio, transformed
from ssl_pipeline.evaluation.corruptions.corruption import Corruption, Taken


class Blur(Corruption):
    """Gaussian blur along all axes; levels are its standard deviation in mm."""

    TITLE: ClassVar[str] = "blur"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    LEVELS: ClassVar = (0.75, 1.0, 1.5, 2.0, 3.0)

    name: Literal["blur"] = "blur"

    def worsen(self, scan: Taken, level: float, rng: np.random.Generator) -> Taken:
        """The same along all axes."""
        return transformed(scan, torchio().Blur((level, level, level)))
