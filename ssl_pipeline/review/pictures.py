"""Pictures of a scan for a reader: slices in three planes, windowed, with an overlay.

A scan is drawn from its own file and not from the store: what was rejected is not stored. Its axes
are canonical, front or top up and the patient's right on the left.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_pipeline.preprocess.foreground import bounding_box
from ssl_pipeline.preprocess.labels import nearest_voxels
from ssl_pipeline.types import Shape
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.geometry import spacing_mm, to_canonical
from ssl_pipeline.volumes.readers import Source
from ssl_pipeline.volumes.value_statistics import valid_mask
from ssl_pipeline.volumes.volume import Volume

PLANES = MappingProxyType({"axial": 2, "coronal": 1, "sagittal": 0})  # across which axis (x, y, z)
AUTO = "auto"
# Lowest and highest value in HU; the usual names of radiology.
CT_WINDOWS = {"soft_tissue": (-160, 240), "lung": (-1350, 150), "bone": (-450, 1050)}
PERCENTILES = (0.5, 99.5)  # of the window "auto"
WINDOW_VOXELS = 2**20  # from so many of which the window "auto" is found
LABELS, PREDICTION, FOREGROUND = "labels", "prediction", "foreground"  # names of overlays
MAX_SIDE = 640  # pixels of a picture's longer side
# Okabe and Ito's colours, which colour-blind people can tell apart, without bluish green, which
# deuteranopes do not see over a grey scan.
LABEL_COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 114, 178), (240, 228, 66), (213, 94, 0), (204, 121, 167)]
)
OPACITY = 0.45
STRIPES, STRIPE_PERIOD = 1.2, 9  # of a planted defect: standard deviations, and voxels


Classes = NDArray[np.uint8]  # (x, y, z): 0, or 1 + index of a colour
Window = tuple[float, float]  # lowest and highest value
FindForeground = Callable[[Volume], NDArray[np.bool_]]  # of a scan as read: (x, y, z), canonical


@dataclass(frozen=True, eq=False)
class ReviewVolume:
    """A scan as it is drawn: `data` and overlays (x, y, z), in canonical order."""

    data: NDArray[Any]
    spacing_mm: tuple[float, float, float]  # (x, y, z)
    windows: Mapping[str, Window]
    overlays: Mapping[str, Callable[[], Classes]] = field(default_factory=dict)  # by name

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
    label_maps: Mapping[str, Sequence[Path]],
    *,
    missing_value: float | None,
    intensity_offset: float,
    modality: str,
    find_foreground: FindForeground,
) -> ReviewVolume:
    """Read a scan and what may lie over it. Raises ReadError where the scan cannot be read.

    `label_maps` has files by the name of their overlay, LABELS or PREDICTION; each lies where its
    own affine says. `intensity_offset` is added to stored values to give HU.
    """
    volume = readers.read_volume(source).with_missing_value(missing_value)
    straight = to_canonical(volume)
    windows = {AUTO: _auto_window(straight)}
    if modality == "CT":
        windows |= {
            name: (low - intensity_offset, high - intensity_offset)
            for name, (low, high) in CT_WINDOWS.items()
        }
    overlays: dict[str, Callable[[], Classes]] = {}
    for name, files in label_maps.items():
        if files:
            overlays[name] = cache(partial(_label_image, files, straight))
    overlays[FOREGROUND] = cache(lambda: find_foreground(volume).astype(np.uint8))
    return ReviewVolume(straight.data, spacing_mm(straight.affine), windows, overlays)


def _auto_window(volume: Volume) -> Window:
    """Percentiles of the valid values, of WINDOW_VOXELS voxels of a large volume."""
    step = max(1, round((volume.data.size / WINDOW_VOXELS) ** (1 / 3)))
    values = volume.data[::step, ::step, ::step]
    is_valid = valid_mask(values, volume.missing_value)
    low, high = np.percentile(values[is_valid], PERCENTILES) if is_valid.any() else (0.0, 1.0)
    return float(low), float(high)


def with_stripes(volume: ReviewVolume) -> ReviewVolume:
    """The scan with stripes, as a spike in k-space makes: a defect that a reader must see."""
    low, high = volume.windows[AUTO]
    strength = STRIPES * float(np.std(np.clip(volume.data, low, high)))
    x, y, z = np.ogrid[tuple(slice(side) for side in volume.data.shape)]
    phase = 2 * np.pi / STRIPE_PERIOD * (x + y / 2 + z)
    corrupted = volume.data + strength * np.cos(phase)
    return replace(volume, data=np.where(volume.data > low, corrupted, volume.data))


def with_moved_overlay(volume: ReviewVolume, name: str) -> ReviewVolume:
    """The scan with an overlay a third of its extent off along each axis: it does not fit."""

    def moved() -> Classes:
        classes = volume.overlays[name]()
        box = bounding_box(classes > 0, (0, 0, 0))
        steps = [max(1, (side.stop - side.start) // 3) for side in box]
        result = np.zeros_like(classes)
        result[tuple(slice(step, None) for step in steps)] = classes[
            tuple(slice(None, -step) for step in steps)
        ]
        return result

    return replace(volume, overlays={**volume.overlays, name: cache(moved)})


def draw_slice(
    volume: ReviewVolume, plane: str, index: int, window: Window, overlay: str = ""
) -> bytes:
    """One slice as PNG, with an overlay or, by default, without any.

    Raises KeyError for an unknown plane or overlay, IndexError for no slice.
    """
    axis = PLANES[plane]
    low, high = window
    if not 0 <= index < volume.data.shape[axis]:
        raise IndexError(f"{plane} has no slice {index}")
    values = _as_displayed(volume.data, axis, index).astype(np.float32)
    share = np.nan_to_num((values - low) / max(high - low, 1e-6), posinf=1.0, neginf=0.0)
    pixels = (np.clip(share, 0, 1) * 255).astype(np.uint8)
    if overlay:
        pixels = _tinted(pixels, _as_displayed(volume.overlays[overlay](), axis, index))
    picture = Image.fromarray(pixels).resize(_size(volume, axis), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _as_displayed(data: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """A plane as (down, across), turned for display."""
    plane: NDArray[Any] = np.take(data, index, axis=axis).T
    return plane[::-1, ::-1]


def _tinted(pixels: NDArray[np.uint8], classes: Classes) -> NDArray[np.uint8]:
    """Grey pixels as RGB, with the colours of classes over them."""
    grey = np.repeat(pixels[..., None], 3, axis=2)
    colour = LABEL_COLOURS[(classes.astype(np.intp) - 1) % len(LABEL_COLOURS)]
    mixed = (1 - OPACITY) * grey + OPACITY * colour
    return np.where(classes[..., None] > 0, mixed, grey).astype(np.uint8)


def _size(volume: ReviewVolume, axis: int) -> tuple[int, int]:
    """Width and height in square pixels."""
    across, down = [each for each in (0, 1, 2) if each != axis]
    extent = [volume.data.shape[each] * volume.spacing_mm[each] for each in (across, down)]
    scale = MAX_SIDE / max(extent)
    return max(1, round(extent[0] * scale)), max(1, round(extent[1] * scale))


def _label_image(paths: Sequence[Path], scan: Volume) -> Classes:
    """All labels in one image on the scan's grid; where several meet, the last one counts."""
    shape: Shape = scan.data.shape
    found = np.zeros(shape, np.uint8)
    for path in paths:
        classes = nearest_voxels(readers.read_volume(Source(path)), scan.affine, shape, outside=0)
        found[classes > 0] = (classes[classes > 0] - 1) % len(LABEL_COLOURS) + 1
    return found
