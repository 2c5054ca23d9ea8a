"""Baseline of correspondence: grey values about a place, blurred by six widths."""

from collections.abc import Iterator

import numpy as np
import scipy
from jaxtyping import Float
from numpy.typing import NDArray

from ssl_pipeline.evaluation.correspondence.describer import Describer, Place, Places, Values
from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.preprocess.prepare import PreparedVolume, model_input
from ssl_pipeline.types import Triple

WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # standard deviations of the blur, in voxels
Blurred = Float[NDArray[np.float32], "channels z y x"]


class GreyValueDescriber(Describer):
    """Values of the blurred scan, on the grid of the patches of the encoders beside it."""

    def __init__(self, patch: Triple, step: Triple) -> None:
        self.patch, self.step = patch, step
        self._last: tuple[PreparedVolume, Blurred] | None = None

    def grid_values(self, scan: PreparedVolume) -> Iterator[Slab]:
        """Values at the voxel nearest to each middle; see `Describer`."""
        blurred = self._blurred(scan)
        last = np.array(blurred.shape[1:]) - 1
        grids = [
            np.minimum(np.arange(0, side, own) + own // 2, end)
            for side, own, end in zip(blurred.shape[1:], self.step, last, strict=True)
        ]
        yield Slab(0, blurred[:, grids[0][:, None, None], grids[1][:, None], grids[2]])

    def values_about(self, scan: PreparedVolume, centre: Place, places: Places) -> Values:
        """Values at the nearest voxels; see `Describer`."""
        blurred = self._blurred(scan)
        last = np.array(blurred.shape[1:]) - 1
        z, y, x = np.clip(np.round(places).astype(np.int64), 0, last).T
        return blurred[:, z, y, x].T

    def _blurred(self, scan: PreparedVolume) -> Blurred:
        """The blurred scan, which is kept until the next one."""
        if self._last is None or self._last[0] is not scan:
            self._last = scan, _blur(scan)
        return self._last[1]


def _blur(scan: PreparedVolume) -> Blurred:
    image = model_input(scan.data, scan.meta)
    blurred = [scipy.ndimage.gaussian_filter(image, width, truncate=2) for width in WIDTHS]
    return np.stack(blurred)
