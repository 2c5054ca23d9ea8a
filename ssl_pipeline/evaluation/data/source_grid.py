"""The way back from the stored grid to a scan's own: predictions as segmentations to be scored.

A truth that preprocessing cropped or resampled is another truth, and scores on the stored grid are
those of another question. So probabilities are interpolated linearly at the voxel centres of the
scan, and the most probable class is the segmentation: of label maps, only the nearest voxel could
be taken. Probabilities come slab by slab and leave as one byte a voxel: a scan of 512 x 512 x 600
voxels and eight classes never needs the 5 GiB of all its probabilities.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_pipeline.evaluation.prediction.calibration import scale_probabilities
from ssl_pipeline.preprocess.chunking import slabs
from ssl_pipeline.preprocess.prepare import VolumeMeta


class Slab(NamedTuple):
    """Some planes of a stored volume, in the order that they follow each other."""

    first: int  # plane z
    values: NDArray[np.float32]  # (channels, planes, y, x), such as probabilities of classes


class SourceBlock(NamedTuple):
    """Values of the voxels of a box of the scan's own grid that are `inside` of some planes."""

    box: tuple[slice, slice, slice]  # (x, y, z)
    inside: NDArray[np.bool_]  # (x, y, z) of the box
    values: NDArray[np.float32]  # (channels, n), of the voxels inside, in C order


class ClassMap(NamedTuple):
    """The most probable class of each voxel (x, y, z) of the scan's own grid."""

    classes: NDArray[np.uint8]
    probability: NDArray[np.float32]  # of that class; 0 where it is background


def classes_on_source_grid(probabilities: Iterable[Slab], meta: VolumeMeta) -> NDArray[np.uint8]:
    """The most probable class of each voxel (x, y, z) of the scan's own grid.

    `probabilities` of a stored volume have background first. What lies outside of the stored volume
    is background. The result goes with `meta.source_affine`.
    """
    classes = np.zeros(meta.source_shape, np.uint8)
    for block in interpolated_blocks(probabilities, meta):
        classes[block.box][block.inside] = block.values.argmax(axis=0)
    return classes


def class_map_on_source_grid(
    probabilities: Iterable[Slab], meta: VolumeMeta, temperature: float
) -> ClassMap:
    """The classes of `classes_on_source_grid`, with probabilities scaled by a temperature."""
    found = ClassMap(np.zeros(meta.source_shape, np.uint8), np.zeros(meta.source_shape, np.float32))
    for block in interpolated_blocks(probabilities, meta):
        classes = block.values.argmax(axis=0)
        labelled = classes > 0
        rows = block.values[:, labelled].T.astype(np.float64)
        places = block.inside.copy()
        places[block.inside] = labelled
        found.classes[block.box][block.inside] = classes
        # Zeros that nobody writes take no memory, so background is left as it is.
        found.probability[block.box][places] = scale_probabilities(rows, temperature).max(axis=1)
    return found


def interpolated_blocks(stored: Iterable[Slab], meta: VolumeMeta) -> Iterator[SourceBlock]:
    """Values of a stored volume at the voxel centres of the scan's own grid, by linear
    interpolation.

    Each voxel of the scan whose centre lies in the stored volume is inside of exactly one block.
    """
    way = _Way(np.linalg.inv(np.array(meta.affine)) @ np.array(meta.source_affine), meta)
    last = np.zeros((0, 0, 0, 0), np.float32)  # the plane before a slab, which it continues
    for first, values in stored:
        planes = np.concatenate([last, values], axis=1) if first else values
        start, stop = first - bool(first), first + values.shape[1]
        low = float(start) if first else -0.5
        high = stop - 1.0 if stop < meta.shape[0] else stop - 0.5
        yield from way.blocks(planes, start, (low, high))
        last = values[:, -1:]


@dataclass(frozen=True)
class _Way:
    """From voxels (x, y, z) of a scan to those of its stored volume, by an affine (4, 4)."""

    to_stored: NDArray[np.float64]
    meta: VolumeMeta

    def blocks(
        self, planes: NDArray[np.float32], start: int, z_range: tuple[float, float]
    ) -> Iterator[SourceBlock]:
        """Blocks of the voxels whose stored z lies in a range; `planes` begin at plane `start`."""
        axis = int(np.abs(self.to_stored[2, :3]).argmax())  # of the scan, along which z changes
        reached = self._reached(axis, z_range)
        plane_size = len(planes) * np.prod(self.meta.source_shape) // self.meta.source_shape[axis]
        x, y, z = (slice(0, size) for size in self.meta.source_shape)
        for part in slabs(len(reached), int(plane_size)):
            box = [x, y, z]
            box[axis] = slice(reached.start + part.start, reached.start + part.stop)
            yield self._block(planes, start, z_range, (box[0], box[1], box[2]))

    def _reached(self, axis: int, z_range: tuple[float, float]) -> range:
        """Indices along an axis of the scan at which some voxel has its stored z in a range."""
        row, shape = self.to_stored[2], self.meta.source_shape
        others = [row[i] * (shape[i] - 1) for i in range(3) if i != axis]
        centre = row[axis] * np.arange(shape[axis]) + row[3]
        lowest, highest = (centre + sum(f(0.0, other) for other in others) for f in (min, max))
        found = np.flatnonzero((highest >= z_range[0]) & (lowest < z_range[1]))
        return range(int(found[0]), int(found[-1]) + 1) if len(found) else range(0)

    def _block(
        self,
        planes: NDArray[np.float32],
        start: int,
        z_range: tuple[float, float],
        box: tuple[slice, slice, slice],
    ) -> SourceBlock:
        x, y, z = np.ogrid[box]
        places = [a * x + b * y + c * z + shift for a, b, c, shift in self.to_stored[:3]]
        _, size_y, size_x = self.meta.shape
        ranges = ((-0.5, size_x - 0.5), (-0.5, size_y - 0.5), z_range)
        inside = np.ones(places[0].shape, np.bool_)
        for place, (low, high) in zip(places, ranges, strict=True):
            inside &= (place >= low) & (place < high)
        places[2] = places[2] - start
        # grid_sample wants places between the outermost centres as -1 to 1, in the order (x, y, z)
        scaled = [
            2 * place[inside] / max(1, size - 1) - 1
            for place, size in zip(places, planes.shape[:0:-1], strict=True)
        ]
        points = torch.from_numpy(np.stack(scaled, axis=-1).astype(np.float32))
        values = torch.nn.functional.grid_sample(
            torch.from_numpy(planes)[None],
            points[None, None, None],
            padding_mode="border",
            align_corners=True,
        )
        return SourceBlock(box, inside, values[0, :, 0, 0].numpy())
