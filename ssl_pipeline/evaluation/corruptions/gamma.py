"""Gamma change of contrast of MR: values from 0 to 1 raised to a power."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class Gamma(Corruption):
    """The power is e to the level, or to minus it."""

    TITLE: ClassVar[str] = "contrast"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    REQUIRED_PACKAGE: ClassVar[str] = "torchio"
    LEVELS: ClassVar = (0.2, 0.35, 0.5, 0.7, 0.9)

    name: Literal["gamma"] = "gamma"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Darker or brighter at random."""
        power = float(np.exp(level * rng.choice((-1.0, 1.0))))
        return apply_transform(scan, import_torchio().Gamma(power))
