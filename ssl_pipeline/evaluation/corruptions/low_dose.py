"""Noise of CT at a lower dose: its deviation is inversely proportional to the root of the dose."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage

FULL_DOSE_HU = 15.0  # standard deviation that a scan has at full dose


class LowDose(Corruption):
    """White noise added up to that of the lower dose; levels are fractions of the dose.

    Source: Yu et al. 2012 (doi:10.1148/radiol.12112144), without the texture of a kernel.
    """

    TITLE: ClassVar[str] = "low dose"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (1 / 2, 1 / 4, 1 / 10, 1 / 20, 1 / 40)

    name: Literal["low_dose"] = "low_dose"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Add noise of the variance at full dose times 1 / level - 1."""
        deviation = FULL_DOSE_HU * np.sqrt(1 / level - 1)
        noise = rng.standard_normal(scan.image.shape, np.float32) * np.float32(deviation)
        return replace(scan, image=scan.image + noise)
