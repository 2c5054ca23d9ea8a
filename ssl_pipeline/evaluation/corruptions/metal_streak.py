"""Metal in CT: a bright piece, and streaks of dark and bright that run out from it in its slices.

The streaks are drawn, not reconstructed: the shape is that of artefacts of metal, their physics
(beams that harden, and hardly any photons) is not in it.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage

METAL_HU, RADIUS_MM, HALF_HEIGHT_MM, REACH_MM, STREAKS = 3000.0, 4.0, 10.0, 60.0, 14


class MetalStreak(Corruption):
    """A piece in the middle half of the scan; levels are the streaks' strength in HU beside it."""

    TITLE: ClassVar[str] = "metal"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (100.0, 200.0, 400.0, 700.0, 1200.0)

    name: Literal["metal_streak"] = "metal_streak"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Streaks fade with the distance from the metal, in the plane and between slices."""
        middle = [rng.uniform(0.25, 0.75) * side for side in scan.image.shape]
        z, y, x = (
            (np.arange(side) - at) * step
            for side, at, step in zip(scan.image.shape, middle, scan.spacing_mm, strict=True)
        )
        radius = np.hypot(y[:, None], x[None, :])
        angle = np.arctan2(y[:, None], x[None, :])
        waves = _waves(angle, rng) * np.exp(-radius / REACH_MM)
        height = np.exp(-0.5 * (z / HALF_HEIGHT_MM) ** 2)
        streaks = (level * height[:, None, None] * waves[None]).astype(np.float32)
        image = scan.image + streaks
        inside = (np.abs(z) <= HALF_HEIGHT_MM)[:, None, None] & (radius <= RADIUS_MM)[None]
        return replace(scan, image=np.where(inside, np.float32(METAL_HU), image))


def _waves(angle: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Between -1 and 1 about the metal: narrow streaks at drawn angles, half of them dark."""
    found = np.zeros_like(angle)
    for number, at in enumerate(rng.uniform(-np.pi, np.pi, STREAKS)):
        apart = np.abs(np.angle(np.exp(1j * (angle - at))))
        found += (1 if number % 2 else -1) * np.exp(-0.5 * (apart / 0.12) ** 2)
    return np.clip(found, -1, 1)
