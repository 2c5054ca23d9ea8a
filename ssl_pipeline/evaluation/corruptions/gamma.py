"""Another contrast of MR: values from 0 to 1 raised to a power."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.by_torchio import torchio, transformed
from ssl_pipeline.evaluation.corruptions.corruption import Corruption, Taken


class Gamma(Corruption):
    """The power is e to the level, or to minus it."""

    TITLE: ClassVar[str] = "contrast"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    LEVELS: ClassVar = (0.2, 0.35, 0.5, 0.7, 0.9)

    name: Literal["gamma"] = "gamma"

    def worsen(self, scan: Taken, level: float, rng: np.random.Generator) -> Taken:
        """Darker or brighter, as is drawn."""
        power = float(np.exp(level * rng.choice((-1.0, 1.0))))
        return transformed(scan, torchio().Gamma(power))
