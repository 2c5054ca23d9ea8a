"""HU offset of CT: a scanner with a calibration error."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage


class HuOffset(Corruption):
    """A constant offset; levels are HU."""

    TITLE: ClassVar[str] = "HU offset"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (10.0, 20.0, 40.0, 80.0, 150.0)

    name: Literal["hu_offset"] = "hu_offset"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Up or down at random."""
        return replace(scan, image=scan.image + np.float32(level * rng.choice((-1.0, 1.0))))
