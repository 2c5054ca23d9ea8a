"""Motion artefacts of MR: the head moves during the acquisition."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage
from ssl_pipeline.evaluation.corruptions.torchio_backend import apply_transform, import_torchio


class Motion(Corruption):
    """Three movements; levels are the largest rotation (degrees) and translation (mm) of each."""

    TITLE: ClassVar[str] = "motion"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "MR"
    REQUIRED_PACKAGE: ClassVar[str] = "torchio"
    LEVELS: ClassVar = (1.0, 2.0, 4.0, 6.0, 10.0)

    name: Literal["motion"] = "motion"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Draw rotations and translations up to the level."""
        moves = rng.uniform(-level, level, (2, 3, 3))
        times = np.sort(rng.uniform(0.2, 0.8, 3))
        return apply_transform(scan, import_torchio().Motion(moves[0], moves[1], times, "linear"))
