"""Sharp reconstruction kernel of CT: edges overshoot, and noise grows."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import scipy

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage

RADIUS_MM = 2.0


class SharpKernel(Corruption):
    """Unsharp masking in-plane; levels are the factor of the difference from a blur."""

    TITLE: ClassVar[str] = "hard kernel"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (0.5, 1.0, 2.0, 3.0, 5.0)

    name: Literal["sharp_kernel"] = "sharp_kernel"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Sharpen along y and x alone."""
        _, y_mm, x_mm = scan.spacing_mm
        blurred = scipy.ndimage.gaussian_filter(scan.image, (0, RADIUS_MM / y_mm, RADIUS_MM / x_mm))
        sharper = scan.image + np.float32(level) * (scan.image - blurred)
        return replace(scan, image=sharper.astype(np.float32))
