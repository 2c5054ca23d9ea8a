"""Base class of corruptions: simulated degradations of a scan, at five fixed severity levels.

Corruptions act on whole scans in physical units, before a model's window and before crops are cut:
motion and ghosts cross a whole scan, and a dose is a dose in HU. Levels are fixed numbers, so that
results of different encoders and years can be compared, and each draw has a generator of its own.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.config.section import Section

SEVERITIES = (1, 2, 3, 4, 5)
Image = NDArray[np.float32]  # (z, y, x)


@dataclass(frozen=True)
class ScanImage:
    """The image of a scan with its valid voxels and spacing."""

    image: Image  # HU, or the scan's own units
    valid: NDArray[np.bool_]  # (z, y, x)
    spacing_mm: tuple[float, float, float]  # (z, y, x)


class Corruption(Section, ABC):
    """Base class of all corruptions; `LEVELS` are the levels of `corrupt`, by severity."""

    TITLE: ClassVar[str]
    MODALITY: ClassVar[Literal["CT", "MR"]]
    REQUIRED_PACKAGE: ClassVar[str] = ""  # an optional one, without which it cannot be computed
    LEVELS: ClassVar[tuple[float, float, float, float, float]]

    def apply(self, scan: ScanImage, severity: int, rng: np.random.Generator) -> ScanImage:
        """The scan corrupted at a severity from 1 to 5; its shape and spacing stay."""
        return self.corrupt(scan, self.LEVELS[severity - 1], rng)

    @abstractmethod
    def corrupt(self, scan: ScanImage, level: float, rng: np.random.Generator) -> ScanImage:
        """The scan corrupted at a level."""
