"""Dense descriptors of a scan: what a place looks like, as vectors to search other scans by."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.preprocess.prepare import FOREGROUND, PreparedVolume
from ssl_pipeline.types import Triple

Place = Float[NDArray[np.float64], " 3"]  # voxel (z, y, x) of a stored grid
Places = Float[NDArray[np.float64], "_ 3"]
Values = Float[NDArray[np.float32], "_ channels"]


@dataclass(frozen=True)
class Descriptors:
    """Descriptors of a scan on a coarse grid of places inside the body."""

    values: Values
    places: Places


class Describer(ABC):
    """Computes descriptors of scans.

    Attributes: `patch`, voxels (z, y, x) between places that are told apart with ease; `step`,
    those between the places of the grid.
    """

    patch: Triple
    step: Triple

    @abstractmethod
    def grid_values(self, scan: PreparedVolume) -> Iterator[Slab]:
        """Values at the middles of boxes of `step` voxels that cover a scan, plane after plane."""

    @abstractmethod
    def values_about(self, scan: PreparedVolume, centre: Place, places: Places) -> Values:
        """Values at places near a centre."""

    def describe(self, scan: PreparedVolume) -> Descriptors:
        """Descriptors of a whole scan. Raises UserError where it shows no body.

        Of a slab what lies outside the body is dropped at once.
        """
        values, places, step = [], [], np.array(self.step)
        for first, slab in self.grid_values(scan):
            boxes = np.indices(slab.shape[1:]).reshape(3, -1).T + np.array([first, 0, 0])
            own = boxes * step + (step - 1) / 2
            inside = is_body(scan, own)
            values.append(slab.reshape(len(slab), -1).T[inside])
            places.append(own[inside])
        found = Descriptors(np.concatenate(values), np.concatenate(places))
        if not len(found.places):
            raise UserError("No part of this scan lies inside a body: is the modality right?")
        return found


def is_body(scan: PreparedVolume, places: Places) -> NDArray[np.bool_]:
    """Whether the nearest voxel of each place lies inside the body."""
    last = np.array(scan.meta.shape) - 1
    z, y, x = np.clip(np.round(places).astype(np.int64), 0, last).T
    inside: NDArray[np.bool_] = scan.data[1, z, y, x] & FOREGROUND > 0
    return inside
