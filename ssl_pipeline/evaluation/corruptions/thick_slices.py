"""Thick slices of CT: neighbouring slices are averaged, and resampled by interpolation."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, Image, ScanImage


class ThickSlices(Corruption):
    """Averaging of slices; levels are the number of stored slices in a thick one."""

    TITLE: ClassVar[str] = "thick slices"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (2.0, 3.0, 4.0, 6.0, 8.0)

    name: Literal["thick_slices"] = "thick_slices"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Average along z."""
        return replace(scan, image=thicken_slices(scan.image, int(level), 0))


def thicken_slices(image: Image, number: int, axis: int) -> Image:
    """Means over `number` slices along an axis, and straight lines between their middles."""
    along = np.moveaxis(image, axis, 0)
    slices = len(along)
    starts = np.arange(0, slices, number)
    heights = np.diff(np.append(starts, slices))
    thick = np.add.reduceat(along, starts, axis=0) / heights[:, None, None]
    middles = starts + (heights - 1) / 2
    place = np.interp(np.arange(slices), middles, np.arange(len(thick)))
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(thick) - 1)
    share = (place - below)[:, None, None]
    back = ((1 - share) * thick[below] + share * thick[above]).astype(np.float32)
    return np.moveaxis(back, 0, axis)
