"""One scan in, one volume ready to be stored out: two channels of int16, intensity and mask bits.

The order is: axes to the nearest ones of R, A, S (no resampling; a rotation stays in the affine,
unless the study asks to straighten it; a shear never does); int16 values; foreground; crop to it;
resample. Values and foreground come before resampling, so that only what is kept is resampled, and
the foreground does not depend on the spacing asked for.

Voxels that are not valid (the scan's "missing" value, or not finite) hold the lowest value and
lack the VALID bit. Where resampling follows, they take the value of the nearest valid voxel for
its time: an edge to air would ring several voxels deep into valid ones. A resampled voxel is valid
where the voxel that its centre lies in was.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.foreground import box_around, foreground, otsu
from ssl_pipeline.preprocess.intensity import (
    MR_LIMIT,
    Statistics,
    ct_int16,
    histogram,
    mr_int16,
    statistics,
    valid_voxels,
)
from ssl_pipeline.preprocess.resample import (
    Shape,
    Triple,
    axis_orders,
    new_shape,
    resample,
    resample_mask,
    resampled_affine,
)
from ssl_pipeline.preprocess.straighten import straight_grid, straightened
from ssl_pipeline.volumes.geometry import (
    SHEARED_DEG,
    canonical,
    residual_rotation_deg,
    shear_deg,
    spacing_mm,
)
from ssl_pipeline.volumes.volume import Volume

VERSION = 1  # raise it when the same scan and section give another volume
VALID, FOREGROUND, ANONYMISED = 1, 2, 4  # mask bits
OBLIQUE_DEG = 0.1  # a scan turned by less is straight

Affine = tuple[tuple[float, ...], ...]  # (4, 4)
T = TypeVar("T")


@dataclass(frozen=True)
class VolumeMeta:
    """What is needed to use a stored volume and to go back to its scan."""

    modality: str  # "CT" or "MR"
    shape: Shape  # voxels (z, y, x) of the stored grid
    affine: Affine  # voxel (x, y, z) of the stored grid -> RAS+ mm
    spacing_mm: Triple  # (x, y, z) of the stored grid
    source_affine: Affine  # voxel (x, y, z) of the scan as read -> RAS+ mm
    source_shape: Shape  # voxels (x, y, z) of the scan as read
    scale: float  # physical = stored * scale + offset: HU, or the scan's own units
    offset: float
    low: float  # model input = (clip(physical, low, high) - centre) / width
    high: float
    centre: float
    width: float
    foreground_share: float  # of the stored voxels
    valid_share: float

    def to_json(self) -> dict[str, Any]:
        """The same as JSON can say it; every digit is kept."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "VolumeMeta":
        """Read what `to_json` gave."""
        fields = dict(content)
        for name in ("affine", "source_affine"):
            fields[name] = tuple(tuple(row) for row in content[name])
        for name in ("shape", "spacing_mm", "source_shape"):
            fields[name] = tuple(content[name])
        return cls(**fields)


@dataclass(frozen=True)
class Prepared:
    """A volume ready to be stored."""

    data: NDArray[np.int16]  # (2, z, y, x): intensity, mask bits
    meta: VolumeMeta


def prepare(
    volume: Volume,
    modality: str,
    section: Preprocess,
    *,
    intensity_offset: float = 0.0,
    missing_value: float | None = None,
) -> Prepared:
    """Bring a scan, as read, to the stored grid and to int16.

    `intensity_offset` is added to the scan's values; `missing_value` is compared before that.
    Raises UserError for a modality other than CT and MR, a scan without any valid voxel, and one
    whose resampled array would exceed `section.max_gib`.
    """
    if modality not in ("CT", "MR"):
        raise UserError(f"The modality is {modality!r}: set it to CT or MR in the scan's root.")
    own = canonical(volume)
    raw = own.data.transpose(2, 1, 0)
    valid = valid_voxels(raw, missing_value)
    if not valid.any():
        raise UserError("No voxel holds a value: exclude the scan, or correct missing_value.")
    limits, scale, offset = section.ct.clip_hu, 1.0, 0.0
    if modality == "CT":
        image = ct_int16(raw, valid, intensity_offset, limits)
    else:
        limits = (-MR_LIMIT, MR_LIMIT)
        image, scale, offset = mr_int16(raw, valid, intensity_offset)
    body, affine = _body(image, valid, modality, section), own.affine
    oblique = residual_rotation_deg(affine) > OBLIQUE_DEG
    if shear_deg(affine) > SHEARED_DEG or (section.straighten and oblique):
        image, valid, body, affine = _straight(image, valid, body, affine, section, limits)
    image, valid, body, affine = _on_grid(image, valid, body, affine, section, modality, limits)
    window = _window(image, body, modality, section, scale, offset)
    data = np.empty((2, *image.shape), np.int16)
    data[0] = image
    data[1] = valid * np.int16(VALID) + body * np.int16(FOREGROUND)
    meta = VolumeMeta(
        modality=modality,
        shape=_triple(image.shape),
        affine=_rows(affine),
        spacing_mm=spacing_mm(affine),
        source_affine=_rows(volume.affine),
        source_shape=_triple(volume.data.shape),
        scale=scale,
        offset=offset,
        low=window.low,
        high=window.high,
        centre=window.mean,
        width=window.std,
        foreground_share=round(float(body.mean()), 6),
        valid_share=round(float(valid.mean()), 6),
    )
    return Prepared(data, meta)


def model_input(block: NDArray[np.int16], meta: VolumeMeta) -> NDArray[np.float32]:
    """What a model sees of a block (2, z, y, x) of a stored volume: (z, y, x), values about +-2.

    Voxels that are not valid, also outside of the volume, have the value that `meta.low` has.
    """
    factor, shift = meta.scale / meta.width, (meta.offset - meta.centre) / meta.width
    low, high = (np.float32((v - meta.centre) / meta.width) for v in (meta.low, meta.high))
    out: NDArray[np.float32] = block[0] * np.float32(factor)
    out += np.float32(shift)
    np.clip(out, low, high, out=out)
    out[(block[1] & VALID) == 0] = low
    return out


def check_memory(shape: Shape, section: Preprocess, *, resampled: bool) -> None:
    """Raise UserError where an array of `shape` in float32 exceeds `section.max_gib`."""
    gib = 4 * math.prod(shape) / 2**30
    if gib > section.max_gib:
        cure = "set a larger spacing_mm, or raise it." if resampled else "raise it."
        raise UserError(
            f"{'Resampled to' if resampled else 'With'} {' x '.join(map(str, shape))} voxels "
            f"it needs {gib:.3g} GiB, more than preprocess.max_gib, {section.max_gib:g}: {cure}"
        )


def _body(
    image: NDArray[np.int16], valid: NDArray[np.bool_], modality: str, section: Preprocess
) -> NDArray[np.bool_]:
    if section.foreground == "all":
        return valid
    if modality == "CT":
        return foreground(image, valid, section.ct.foreground_hu)
    threshold = otsu(histogram(image, valid), section.mr.percentiles)
    return foreground(image, valid, float(threshold))


def _straight(
    image: NDArray[np.int16],
    valid: NDArray[np.bool_],
    body: NDArray[np.bool_],
    affine: NDArray[np.float64],
    section: Preprocess,
    limits: tuple[int, int],
) -> tuple[NDArray[np.int16], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """An oblique or sheared scan on straight axes: image, valid, body (z, y, x), and the affine."""
    ras = section.straighten
    shape, _ = straight_grid(_reversed(_triple(image.shape)), affine, along_ras=ras)
    check_memory(shape, section, resampled=True)
    filled = _filled(image, valid, spacing_mm(affine))
    image, (valid, body), affine = straightened(
        filled, (valid, body), affine, section.order, limits, along_ras=ras
    )
    return np.where(valid, image, np.int16(limits[0])), valid, body, affine


def _on_grid(
    image: NDArray[np.int16],
    valid: NDArray[np.bool_],
    body: NDArray[np.bool_],
    affine: NDArray[np.float64],
    section: Preprocess,
    modality: str,
    limits: tuple[int, int],
) -> tuple[NDArray[np.int16], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Crop to the body and resample: image, valid, body (z, y, x), and the affine of (x, y, z)."""
    spacing = spacing_mm(affine)
    target = section.modality_dials(modality).spacing_mm
    margin = [
        math.ceil(section.margin_voxels * new / old - 1e-6)
        for old, new in zip(spacing, target or spacing, strict=True)
    ]
    box = box_around(body, (margin[2], margin[1], margin[0]))
    image, valid, body = image[box], valid[box], body[box]
    old = _triple(image.shape)
    shape = _reversed(new_shape(_reversed(old), spacing, target))
    check_memory((max(old[0], shape[0]), shape[1], shape[2]), section, resampled=shape != old)
    if shape != old:
        image = _filled(image, valid, spacing)
    orders = axis_orders(_reversed(spacing), section.order, section.thick_ratio)
    image = resample(image, shape, orders, limits)
    valid, body = resample_mask(valid, shape), resample_mask(body, shape)
    if not valid.all():
        image = np.where(valid, image, np.int16(limits[0]))
    cropped = np.array(affine, np.float64)
    cropped[:3, 3] += cropped[:3, :3] @ [part.start for part in reversed(box)]
    return image, valid, body, resampled_affine(cropped, _reversed(old), _reversed(shape))


def _filled(
    image: NDArray[np.int16], valid: NDArray[np.bool_], spacing: Triple
) -> NDArray[np.int16]:
    """The image with the value of the nearest valid voxel (in mm) where a voxel is not valid."""
    if valid.all():
        return image
    z, y, x = ndimage.distance_transform_edt(
        ~valid, sampling=_reversed(spacing), return_distances=False, return_indices=True
    )
    filled: NDArray[np.int16] = image[z, y, x]
    return filled


def _window(
    image: NDArray[np.int16],
    body: NDArray[np.bool_],
    modality: str,
    section: Preprocess,
    scale: float,
    offset: float,
) -> Statistics:
    """What the model input is clipped to, centred on and divided by."""
    if modality == "CT":
        low, high = section.ct.window_hu
        return Statistics(low, high, (low + high) / 2, (high - low) / 4)
    found = statistics(histogram(image, body), section.mr.percentiles, scale, offset)
    return Statistics(found.low, found.high, found.mean, max(found.std, scale))


def _triple(shape: tuple[int, ...]) -> Shape:
    a, b, c = shape
    return a, b, c


def _reversed(triple: tuple[T, T, T]) -> tuple[T, T, T]:
    a, b, c = triple
    return c, b, a


def _rows(affine: NDArray[np.float64]) -> Affine:
    return tuple(tuple(float(v) for v in row) for row in affine)
