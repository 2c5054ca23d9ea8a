"""Pictures of a scan for a reader: slices in three planes, windowed, with the labels over them.

A scan is drawn from its own file and not from the store: what was rejected is not stored. Its axes
are canonical, front or top up and the patient's right on the left.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.geometry import is_same_grid, spacing_mm, to_canonical
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.value_statistics import valid_mask
from ssl_pipeline.volumes.volume import Volume

PLANES = MappingProxyType({"axial": 2, "coronal": 1, "sagittal": 0})  # across which axis (x, y, z)
AUTO = "auto"
# Lowest and highest value in HU; the usual names of radiology.
CT_WINDOWS = {"soft_tissue": (-160, 240), "lung": (-1350, 150), "bone": (-450, 1050)}
PERCENTILES = (0.5, 99.5)  # of the window "auto"
MAX_SIDE = 640  # pixels of a picture's longer side
# Okabe and Ito's colours, which colour-blind people can tell apart.
LABEL_COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)]
)
OPACITY = 0.45
STRIPES, STRIPE_PERIOD = 1.2, 9  # of a planted defect: standard deviations, and voxels


@dataclass(frozen=True, eq=False)
class ReviewVolume:
    """A scan as it is drawn: `data` and `labels` (x, y, z), in canonical order."""

    data: NDArray[Any]
    spacing_mm: tuple[float, float, float]  # (x, y, z)
    windows: Mapping[str, tuple[float, float]]  # lowest and highest value, by name
    labels: NDArray[np.uint8] | None = None  # 0, or 1 + index of the label's colour

    @property
    def spacing_text(self) -> str:
        """The size of a voxel, (z, y, x)."""
        x, y, z = self.spacing_mm
        return f"{z:.3g} × {y:.3g} × {x:.3g} mm"

    def slice_count(self, plane: str) -> int:
        """How many slices a plane has."""
        return int(self.data.shape[PLANES[plane]])


def open_volume(
    source: Source,
    labels: Mapping[str, Path],
    *,
    missing_value: float | None,
    intensity_offset: float,
    modality: str,
) -> ReviewVolume:
    """Read a scan and its labels. Raises ReadError where the scan cannot be read.

    `intensity_offset` is added to stored values to give HU; a label that cannot be drawn over the
    scan is left out.
    """
    volume = readers.read_volume(source).with_missing_value(missing_value)
    straight = to_canonical(volume)
    values = straight.data
    is_valid = valid_mask(values, straight.missing_value)
    low, high = np.percentile(values[is_valid], PERCENTILES) if is_valid.any() else (0.0, 1.0)
    windows = {AUTO: (float(low), float(high))}
    if modality == "CT":
        windows |= {
            name: (low - intensity_offset, high - intensity_offset)
            for name, (low, high) in CT_WINDOWS.items()
        }
    return ReviewVolume(
        values, spacing_mm(straight.affine), windows, _label_image(labels, volume, values.shape)
    )


def with_stripes(volume: ReviewVolume) -> ReviewVolume:
    """The scan with stripes, as a spike in k-space makes: a defect that a reader must see."""
    low, high = volume.windows[AUTO]
    strength = STRIPES * float(np.std(np.clip(volume.data, low, high)))
    x, y, z = np.ogrid[tuple(slice(side) for side in volume.data.shape)]
    phase = 2 * np.pi / STRIPE_PERIOD * (x + y / 2 + z)
    corrupted = volume.data + strength * np.cos(phase)
    return replace(volume, data=np.where(volume.data > low, corrupted, volume.data))


def draw_slice(
    volume: ReviewVolume, plane: str, index: int, window: str, *, overlay: bool
) -> bytes:
    """One slice as PNG. Raises KeyError for an unknown plane or window, IndexError for no slice."""
    axis = PLANES[plane]
    low, high = volume.windows[window]
    if not 0 <= index < volume.data.shape[axis]:
        raise IndexError(f"{plane} has no slice {index}")
    values = _as_displayed(volume.data, axis, index).astype(np.float32)
    share = np.nan_to_num((values - low) / max(high - low, 1e-6), posinf=1.0, neginf=0.0)
    pixels = (np.clip(share, 0, 1) * 255).astype(np.uint8)
    if overlay and volume.labels is not None:
        pixels = _tinted(pixels, _as_displayed(volume.labels, axis, index))
    picture = Image.fromarray(pixels).resize(_size(volume, axis), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _as_displayed(data: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """A plane as (down, across), turned for display."""
    plane: NDArray[Any] = np.take(data, index, axis=axis).T
    return plane[::-1, ::-1]


def _tinted(pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey pixels as RGB, with the labels' colours over them."""
    grey = np.repeat(pixels[..., None], 3, axis=2)
    colour = LABEL_COLOURS[(labels.astype(np.intp) - 1) % len(LABEL_COLOURS)]
    mixed = (1 - OPACITY) * grey + OPACITY * colour
    return np.where(labels[..., None] > 0, mixed, grey).astype(np.uint8)


def _size(volume: ReviewVolume, axis: int) -> tuple[int, int]:
    """Width and height in square pixels."""
    across, down = [each for each in (0, 1, 2) if each != axis]
    extent = [volume.data.shape[each] * volume.spacing_mm[each] for each in (across, down)]
    scale = MAX_SIDE / max(extent)
    return max(1, round(extent[0] * scale)), max(1, round(extent[1] * scale))


def _label_image(
    labels: Mapping[str, Path], volume: Volume, shape: tuple[int, ...]
) -> NDArray[np.uint8] | None:
    """All labels in one image; where several meet, the last one counts."""
    found: NDArray[np.uint8] | None = None
    for path in labels.values():
        label = readers.read_volume(Source(path))
        if not is_same_grid(label.grid, volume.grid):
            continue
        classes = to_canonical(label).data
        found = np.zeros(shape, np.uint8) if found is None else found
        found[classes > 0] = (classes[classes > 0] - 1) % len(LABEL_COLOURS) + 1
    return found
