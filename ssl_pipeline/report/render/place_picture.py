"""A place in a scan: the axial, coronal and sagittal plane through it, with a ring about it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ssl_pipeline.preprocess.prepare import PreparedVolume, model_input
from ssl_pipeline.report.render.images import join_images, orient_for_display, resize_image, to_grey
from ssl_pipeline.types import Triple, triple

RING_MM = 8.0  # radius of a ring
LINE_PIXELS = 2
Rgb = tuple[int, int, int]
FOUND_COLOUR, TRUE_COLOUR, DOUBTED_COLOUR = (230, 159, 0), (86, 180, 233), (170, 170, 170)
Mark = tuple[NDArray[np.float64], Rgb]  # a voxel (z, y, x), and the colour of its ring


def place_picture(
    scan: PreparedVolume, marks: Sequence[Mark], longest_side: int, axes: Sequence[int] = (0, 1, 2)
) -> Image.Image:
    """The planes across `axes` through the first mark, with a ring about each mark.

    The longest side of the volume takes `longest_side` pixels.
    """
    meta = scan.meta
    sides = [side * mm for side, mm in zip(meta.shape, meta.spacing_mm, strict=True)]
    scale = longest_side / max(sides)
    at = triple(np.clip(np.round(marks[0][0]), 0, np.array(meta.shape) - 1).astype(int).tolist())
    return join_images([_plane(scan, at, marks, axis, scale) for axis in axes])


def _plane(
    scan: PreparedVolume, at: Triple, marks: Sequence[Mark], axis: int, scale: float
) -> Image.Image:
    """The plane across one axis (0 z: axial, 1 y: coronal, 2 x: sagittal)."""
    meta, others = scan.meta, [each for each in range(3) if each != axis]
    block = np.take(scan.data, [at[axis]], axis=axis + 1)
    plane = np.squeeze(model_input(block, meta), axis=axis)
    low, high = ((value - meta.centre) / meta.width for value in (meta.low, meta.high))
    rows_mm, columns_mm = (meta.spacing_mm[each] for each in others)
    colours = to_grey(orient_for_display(plane), low, high)
    image = resize_image(colours, (rows_mm, columns_mm), scale, smooth=True)
    draw, radius = ImageDraw.Draw(image), RING_MM * scale
    for place, colour in reversed(marks):  # the first lies on top
        row, column = (
            (1 - (place[each] + 0.5) / meta.shape[each]) * size
            for each, size in zip(others, (image.height, image.width), strict=True)
        )
        ring = (column - radius, row - radius, column + radius, row + radius)
        draw.ellipse(ring, outline=colour, width=LINE_PIXELS)
    return image
