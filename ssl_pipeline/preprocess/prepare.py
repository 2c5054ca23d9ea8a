"""Preprocessing of one scan into a volume: two channels of int16, intensity and mask bits.

The order is: axes to the nearest ones of R, A, S (no resampling; a rotation stays in the affine,
unless the study asks to straighten it; a shear never does); int16 values; foreground; crop to it;
resample. Values and foreground come before resampling, so that only what is kept is resampled, and
the foreground does not depend on the spacing asked for.

Voxels that are not valid (the scan's "missing" value, or not finite) hold the lowest value and lack
the VALID bit. Where resampling follows, they temporarily take the value of the nearest valid voxel:
an edge to air would ring several voxels deep into valid ones. A resampled voxel is valid where the
voxel that its centre lies in was.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.config import Ct, Preprocess
from ssl_pipeline.preprocess.foreground import bounding_box, ct_body, mr_body
from ssl_pipeline.preprocess.intensity import (
    MR_LIMIT,
    IntensityStatistics,
    ct_to_int16,
    histogram,
    intensity_statistics,
    mr_to_int16,
)
from ssl_pipeline.preprocess.resample import (
    axis_orders,
    resample,
    resample_mask,
    resampled_affine,
    resampled_shape,
)
from ssl_pipeline.preprocess.straightening import straight_grid, straighten_volume
from ssl_pipeline.types import Shape, Spacing, triple
from ssl_pipeline.volumes.geometry import (
    SHEAR_TOLERANCE_DEG,
    residual_rotation_deg,
    shear_deg,
    spacing_mm,
    to_canonical,
)
from ssl_pipeline.volumes.value_statistics import valid_mask
from ssl_pipeline.volumes.volume import Volume

VERSION = 4  # raise it when the same scan and section give another volume
VALID, FOREGROUND, ANONYMISED = 1, 2, 4  # mask bits
MM3_PER_ML = 1000
MASK_BITS = {"foreground": FOREGROUND, "anonymised": ANONYMISED}  # kinds of masks
OBLIQUE_TOLERANCE_DEG = 0.1  # a scan turned by less is straight

BitMasks = dict[int, NDArray[np.bool_]]  # (z, y, x) each, by the bit that it sets
AffineRows = tuple[tuple[float, ...], ...]  # (4, 4)
T = TypeVar("T")


@dataclass(frozen=True)
class VolumeMeta:
    """Metadata for using a stored volume and for returning to its scan's grid."""

    modality: str  # "CT" or "MR"
    shape: Shape  # voxels (z, y, x) of the stored grid
    affine: AffineRows  # voxel (x, y, z) of the stored grid -> RAS+ mm
    spacing_mm: Spacing  # (z, y, x) of the stored grid
    source_affine: AffineRows  # voxel (x, y, z) of the scan as read -> RAS+ mm
    source_shape: Shape  # voxels (x, y, z) of the scan as read
    scale: float  # physical = stored * scale + offset: HU, or the scan's own units
    offset: float
    low: float  # model input = (clip(physical, low, high) - centre) / width
    high: float
    centre: float
    width: float
    foreground_share: float  # of the stored voxels
    foreground_centre: tuple[float, float, float]  # voxel (z, y, x) at its centre of mass
    valid_share: float
    cut_labels: dict[str, float] = field(default_factory=dict)  # share outside the crop, by label

    @property
    def input_scaling(self) -> tuple[float, float, float, float]:
        """Scaling of stored values to model input: clip(stored * factor + shift, low, high)."""
        factor, shift = self.scale / self.width, (self.offset - self.centre) / self.width
        low, high = ((v - self.centre) / self.width for v in (self.low, self.high))
        return factor, shift, low, high

    def source_volume_ml(self, voxels: int) -> float:
        """The volume of so many voxels of the scan's own grid, in ml."""
        voxel_mm3 = abs(np.linalg.det(np.array(self.source_affine)[:3, :3]))
        return float(voxels * voxel_mm3) / MM3_PER_ML

    def to_json(self) -> dict[str, Any]:
        """The metadata as JSON values; every digit is kept."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "VolumeMeta":
        """The inverse of `to_json`."""
        fields = dict(content)
        for name in ("affine", "source_affine"):
            fields[name] = tuple(tuple(row) for row in content[name])
        for name in ("shape", "spacing_mm", "source_shape", "foreground_centre"):
            fields[name] = tuple(content[name])
        return cls(**fields)


@dataclass(frozen=True)
class PreparedVolume:
    """A volume ready to be stored."""

    data: NDArray[np.int16]  # (2, z, y, x): intensity, mask bits
    meta: VolumeMeta


def prepare_volume(
    volume: Volume,
    modality: str,
    section: Preprocess,
    *,
    intensity_offset: float = 0.0,
    missing_value: float | None = None,
    label_masks: Mapping[str, Volume] | None = None,
) -> PreparedVolume:
    """Bring a scan, as read, to the stored grid and to int16.

    `intensity_offset` is added to the scan's values; `missing_value` is compared before that,
    and the volume's own counts too.
    `label_masks` are masks on the scan's own grid, by kind ("foreground", "anonymised"): their
    voxels above 0 count. Raises UserError for a modality other than CT and MR, a scan without any
    valid voxel, a mask that does not fit or is empty, and a scan whose resampled array would
    exceed `section.max_gib`.
    """
    if modality not in ("CT", "MR"):
        raise UserError(f"The modality is {modality!r}: set it to CT or MR in the scan's root.")
    own = to_canonical(volume.with_missing_value(missing_value))
    raw = own.data.transpose(2, 1, 0)
    valid = valid_mask(raw, own.missing_value)
    if not valid.any():
        raise UserError("No voxel holds a value: exclude the scan, or correct missing_value.")
    image, scale, offset = _to_int16(raw, valid, modality, section, intensity_offset)
    limits = section.ct.clip_hu if modality == "CT" else (-MR_LIMIT, MR_LIMIT)
    affine, masks = own.affine, {VALID: valid, **_label_mask_bits(label_masks or {}, own, valid)}
    if FOREGROUND not in masks:
        masks[FOREGROUND] = _foreground(image, valid, modality, section, -offset / scale)
    oblique = residual_rotation_deg(affine) > OBLIQUE_TOLERANCE_DEG
    if shear_deg(affine) > SHEAR_TOLERANCE_DEG or (section.straighten and oblique):
        image, masks, affine = _straighten(image, masks, affine, section, limits)
    image, masks, affine = _crop_and_resample(image, masks, affine, section, modality, limits)
    window = model_window(image, masks[FOREGROUND], modality, section, scale, offset)
    bits = sum(mask * np.int16(bit) for bit, mask in masks.items())
    data = np.stack([image, bits])
    meta = VolumeMeta(
        modality=modality,
        shape=triple(image.shape),
        affine=_rows(affine),
        spacing_mm=_reversed(spacing_mm(affine)),
        source_affine=_rows(volume.affine),
        source_shape=triple(volume.data.shape),
        scale=scale,
        offset=offset,
        low=window.low,
        high=window.high,
        centre=window.mean,
        width=window.std,
        foreground_share=round(float(masks[FOREGROUND].mean()), 6),
        foreground_centre=_centre_of_mass(masks[FOREGROUND]),
        valid_share=round(float(masks[VALID].mean()), 6),
    )
    return PreparedVolume(data, meta)


def find_foreground(
    volume: Volume, modality: str, section: Preprocess, *, intensity_offset: float = 0.0
) -> NDArray[np.bool_]:
    """The body as `prepare_volume` finds it: (x, y, z), axes in canonical order.

    The volume says its missing value; `intensity_offset` is added to its values.
    """
    own = to_canonical(volume)
    raw = own.data.transpose(2, 1, 0)
    body = valid = valid_mask(raw, own.missing_value)
    if valid.any():
        image, scale, offset = _to_int16(raw, valid, modality, section, intensity_offset)
        body = _foreground(image, valid, modality, section, -offset / scale)
    return body.transpose(2, 1, 0)


def model_input(block: NDArray[np.int16], meta: VolumeMeta) -> NDArray[np.float32]:
    """Model input of a block (2, z, y, x) of a stored volume: (z, y, x), values about +-2.

    Voxels that are not valid, also outside of the volume, have the value that `meta.low` has.
    """
    factor, shift, low, high = (np.float32(unit) for unit in meta.input_scaling)
    out: NDArray[np.float32] = block[0] * factor
    out += shift
    np.clip(out, low, high, out=out)
    out[(block[1] & VALID) == 0] = low
    return out


def learnable_mask(bits: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Where mask bits mark a voxel as measured and unaltered: a valid target of pretraining."""
    found: NDArray[np.bool_] = (bits & (VALID | ANONYMISED)) == VALID
    return found


def check_memory(shape: Shape, section: Preprocess, *, resampled: bool) -> None:
    """Raise UserError where an array of `shape` in float32 exceeds `section.max_gib`.

    The shape is that of the scan's file, or (z, y, x) where it is `resampled`.
    """
    gib = 4 * math.prod(shape) / 2**30
    if gib > section.max_gib:
        cure = "set a larger spacing_mm, or raise it." if resampled else "raise it."
        raise UserError(
            f"{'Resampled to' if resampled else 'With'} {' x '.join(map(str, shape))} voxels"
            f"{' (z, y, x)' if resampled else ''} it needs {gib:.3g} GiB, more than "
            f"preprocess.max_gib, {section.max_gib:g}: {cure}"
        )


def _to_int16(
    raw: NDArray[Any],
    valid: NDArray[np.bool_],
    modality: str,
    section: Preprocess,
    intensity_offset: float,
) -> tuple[NDArray[np.int16], float, float]:
    """Stored values (z, y, x), with the scale and offset that give physical ones."""
    if modality == "CT":
        return ct_to_int16(raw, valid, intensity_offset, section.ct.clip_hu), 1.0, 0.0
    return mr_to_int16(raw, valid, intensity_offset)


def _foreground(
    image: NDArray[np.int16],
    valid: NDArray[np.bool_],
    modality: str,
    section: Preprocess,
    stored_zero: float,
) -> NDArray[np.bool_]:
    if section.foreground == "all":
        return valid
    if modality == "CT":
        return ct_body(image, valid, section.ct.foreground_hu)
    return mr_body(image, valid, stored_zero)


def _label_mask_bits(
    label_masks: Mapping[str, Volume], own: Volume, valid: NDArray[np.bool_]
) -> BitMasks:
    """Masks of a scan in canonical axes, by the bit that they set."""
    found: BitMasks = {}
    for name, mask in label_masks.items():
        voxels = to_canonical(mask).data
        if voxels.shape != own.data.shape:
            raise UserError(f"Its {name} mask has another shape than it: draw it on its grid.")
        found[MASK_BITS[name]] = (voxels.transpose(2, 1, 0) > 0) & valid
    return found


def _straighten(
    image: NDArray[np.int16],
    masks: BitMasks,
    affine: NDArray[np.float64],
    section: Preprocess,
    limits: tuple[int, int],
) -> tuple[NDArray[np.int16], BitMasks, NDArray[np.float64]]:
    """An oblique or sheared scan on straight axes: image and masks (z, y, x), and the affine."""
    ras = section.straighten
    shape, _ = straight_grid(_reversed(triple(image.shape)), affine, along_ras=ras)
    check_memory(_reversed(shape), section, resampled=True)
    filled = _fill_invalid(image, masks[VALID], _reversed(spacing_mm(affine)))
    image, placed, affine = straighten_volume(
        filled, tuple(masks.values()), affine, section.interpolation_order, limits, along_ras=ras
    )
    masks = dict(zip(masks, placed, strict=True))
    return np.where(masks[VALID], image, np.int16(limits[0])), masks, affine


def _check_body(masks: BitMasks) -> None:
    if not masks[FOREGROUND].any():
        raise UserError(
            "Its foreground mask is empty, or vanishes on the stored grid: draw it larger, or take"
            " it from the root's masks."
        )


def _crop_and_resample(
    image: NDArray[np.int16],
    masks: BitMasks,
    affine: NDArray[np.float64],
    section: Preprocess,
    modality: str,
    limits: tuple[int, int],
) -> tuple[NDArray[np.int16], BitMasks, NDArray[np.float64]]:
    """Crop to the body and resample: image and masks (z, y, x), and the affine of (x, y, z)."""
    _check_body(masks)
    spacing = _reversed(spacing_mm(affine))
    target = section.modality_settings(modality).spacing_mm
    margin = triple(
        math.ceil(section.margin_voxels * new / old - 1e-6)
        for old, new in zip(spacing, target or spacing, strict=True)
    )
    box = bounding_box(masks[FOREGROUND], margin)
    image, masks = image[box], {bit: mask[box] for bit, mask in masks.items()}
    old = triple(image.shape)
    shape = resampled_shape(old, spacing, target)
    check_memory((max(old[0], shape[0]), shape[1], shape[2]), section, resampled=shape != old)
    if shape != old:
        image = _fill_invalid(image, masks[VALID], spacing)
    orders = axis_orders(spacing, section.interpolation_order, section.thick_slice_ratio)
    image = resample(image, shape, orders, limits)
    masks = {bit: resample_mask(mask, shape) for bit, mask in masks.items()}
    _check_body(masks)
    if not masks[VALID].all():
        image = np.where(masks[VALID], image, np.int16(limits[0]))
    cropped = np.array(affine, np.float64)
    cropped[:3, 3] += cropped[:3, :3] @ [part.start for part in reversed(box)]
    return image, masks, resampled_affine(cropped, _reversed(old), _reversed(shape))


def _fill_invalid(
    image: NDArray[np.int16], valid: NDArray[np.bool_], spacing: Spacing
) -> NDArray[np.int16]:
    """The image with the value of the nearest valid voxel (in mm) where a voxel is not valid.

    Image and spacing are (z, y, x).
    """
    if valid.all():
        return image
    z, y, x = scipy.ndimage.distance_transform_edt(
        ~valid, sampling=spacing, return_distances=False, return_indices=True
    )
    filled: NDArray[np.int16] = image[z, y, x]
    return filled


def model_window(
    image: NDArray[np.int16],
    body: NDArray[np.bool_],
    modality: str,
    section: Preprocess,
    scale: float,
    offset: float,
) -> IntensityStatistics:
    """The clipping range, centre and width of the model input."""
    if modality == "CT":
        return ct_window(section.ct)
    found = intensity_statistics(histogram(image, body), section.mr.percentiles, scale, offset)
    return IntensityStatistics(found.low, found.high, found.mean, max(found.std, scale))


def ct_window(section: Ct) -> IntensityStatistics:
    """The clipping range, centre and width of the model input of a CT, in HU."""
    low, high = section.window_hu
    return IntensityStatistics(low, high, (low + high) / 2, (high - low) / 4)


def _centre_of_mass(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The mean position of the set voxels, from sums along axes: no array of positions."""
    sums = (mask.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1)))
    z, y, x = (round(float(np.arange(len(n)) @ n / n.sum()), 3) for n in sums)
    return z, y, x


def _reversed(axes: tuple[T, T, T]) -> tuple[T, T, T]:
    a, b, c = axes
    return c, b, a


def _rows(affine: NDArray[np.float64]) -> AffineRows:
    return tuple(tuple(float(v) for v in row) for row in affine)
