"""Truncated field of view of CT: voxels outside a cylinder are not measured."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage


class CutField(Corruption):
    """A cylinder; levels are its radius, as a share of half of the shorter side in the plane."""

    TITLE: ClassVar[str] = "cut field of view"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (0.95, 0.85, 0.75, 0.65, 0.55)

    name: Literal["cut_field"] = "cut_field"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Mark voxels outside as invalid; the image stays."""
        _, height, width = scan.image.shape
        _, y_mm, x_mm = scan.spacing_mm
        y = (np.arange(height) - (height - 1) / 2) * y_mm
        x = (np.arange(width) - (width - 1) / 2) * x_mm
        reach = level * min(height * y_mm, width * x_mm) / 2
        return replace(scan, valid=scan.valid & (np.hypot(y[:, None], x[None, :]) <= reach))
