"""Previews of stored volumes: three middle planes of model input, with the foreground's outline."""

from collections import defaultdict

import numpy as np
from PIL import Image

from ssl_pipeline.preprocess.prepare import FOREGROUND, model_input
from ssl_pipeline.report.render.figures import Picture
from ssl_pipeline.report.render.images import (
    draw_outline,
    encode_picture,
    join_images,
    orient_for_display,
    resize_image,
    to_grey,
)
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.store.reader import CropReader

MAX_PREVIEWS = 12
LONGEST_SIDE_PIXELS = 170  # pixels of a volume's longest side


def volume_previews(
    catalog: Catalog, reader: CropReader, max_previews: int = MAX_PREVIEWS
) -> list[Picture]:
    """Axial, coronal and sagittal middle planes of some volumes, taken from all roots in turn."""
    return [_three_planes(entry, reader) for entry in _select_entries(catalog, max_previews)]


def foreground_previews(catalog: Catalog, reader: CropReader) -> list[Picture]:
    """The same planes of one volume of every root and modality: that of the median foreground."""
    found = []
    for _, own in sorted(_by_root(catalog).items()):
        own.sort(key=lambda entry: entry.meta.foreground_share)
        found.append(_three_planes(own[len(own) // 2], reader))
    return found


def _by_root(catalog: Catalog) -> dict[tuple[str, str], list[Entry]]:
    """The volumes of every root and modality."""
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in catalog.entries:
        groups[entry.root, entry.modality].append(entry)
    return groups


def _select_entries(catalog: Catalog, max_previews: int) -> list[Entry]:
    """The first volumes of every root and modality, in turn."""
    groups = sorted(_by_root(catalog).items())
    ranked = [(rank, key, entry) for key, own in groups for rank, entry in enumerate(own)]
    ranked.sort(key=lambda item: item[:2])
    return [entry for _, _, entry in ranked[:max_previews]]


def _three_planes(entry: Entry, reader: CropReader) -> Picture:
    scale = LONGEST_SIDE_PIXELS / max(
        side * mm for side, mm in zip(entry.shape, entry.spacing_mm, strict=True)
    )
    planes = join_images([_plane(entry, reader, axis, scale) for axis in range(3)])
    voxels = " × ".join(map(str, entry.shape))
    mm = " × ".join(f"{side:.3g}" for side in entry.spacing_mm)
    grid = f"{voxels} voxels of {mm} mm (z, y, x)"
    share = f"{100 * entry.meta.foreground_share:.0f} % foreground"
    title = f"{entry.id} · {entry.root} · {entry.modality} · {grid} · {share}"
    return encode_picture(planes, f"Axial, coronal and sagittal plane of volume {entry.id}", title)


def _plane(entry: Entry, reader: CropReader, axis: int, scale: float) -> Image.Image:
    """The middle plane across one axis (0 z: axial, 1 y: coronal, 2 x: sagittal)."""
    z, y, x = (side // 2 if at == axis else 0 for at, side in enumerate(entry.shape))
    rows, columns, depth = (1 if at == axis else side for at, side in enumerate(entry.shape))
    block = reader.read_crop(entry.id, (z, y, x), (rows, columns, depth))
    plane = np.squeeze(model_input(block, entry.meta), axis=axis)
    spacing = [mm for at, mm in enumerate(entry.spacing_mm) if at != axis]
    meta = entry.meta
    low, high = ((value - meta.centre) / meta.width for value in (meta.low, meta.high))
    image = resize_image(
        to_grey(orient_for_display(plane), low, high), (spacing[0], spacing[1]), scale, smooth=True
    )
    body = np.squeeze(block[1] & FOREGROUND, axis=axis)[::-1, ::-1] > 0
    return draw_outline(image, body)
