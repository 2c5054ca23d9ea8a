"""Metal artefacts of CT: a bright object with dark and bright streaks in its slices.

The streaks are synthesised, not reconstructed: the shape is that of metal artefacts, their physics
(beam hardening and photon starvation) is not simulated.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.corruptions.corruption import Corruption, ScanImage

METAL_HU, RADIUS_MM, HALF_HEIGHT_MM, REACH_MM, STREAKS = 3000.0, 4.0, 10.0, 60.0, 14


class MetalStreak(Corruption):
    """An object in the central half of the scan; levels are the streaks' strength in HU near it."""

    TITLE: ClassVar[str] = "metal"
    MODALITY: ClassVar[Literal["CT", "MR"]] = "CT"
    LEVELS: ClassVar = (100.0, 200.0, 400.0, 700.0, 1200.0)

    name: Literal["metal_streak"] = "metal_streak"

    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """Add streaks that fade with the distance from the metal, and the metal itself."""
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
