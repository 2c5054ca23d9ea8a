"""Smooth reconstruction kernel of CT: blur within the slices."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import scipy

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage


class SmoothKernel(Corruption):
    """Gaussian blur in-plane; levels are its standard deviation in mm."""

    TITLE: ClassVar[str] = "soft kernel"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (1.0, 1.5, 2.0, 3.0, 4.0)

    name: Literal["smooth_kernel"] = "smooth_kernel"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Blur along y and x alone."""
        _, y_mm, x_mm = scan.spacing_mm
        return replace(
            scan, image=scipy.ndimage.gaussian_filter(scan.image, (0, level / y_mm, level / x_mm))
        )
