"""Quality control of scans: rejection with the reason in plain words, or a note of the repair.

Sizes are checked in mm, because a voxel count means nothing without its spacing. The defaults are
wide, and take crops of 24 mm as well as whole bodies; a study of large archives should narrow them.
All faults of a grid are reported at once; intensities are checked only where the grid is good.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.volumes import geometry
from ssl_pipeline.volumes.config import Root
from ssl_pipeline.volumes.review import REJECTED, Decision
from ssl_pipeline.volumes.value_statistics import (
    flat_share,
    sample_values,
    valid_mask,
    without_padding,
)
from ssl_pipeline.volumes.volume import NIFTI_INTENT, SliceSpacing, Volume, VoxelGrid

MISSING_GAP_RATIO = 1.5  # a gap of this many usual ones misses a slice
MIN_BACKGROUND_SHARE = 0.01  # of the voxels; fewer that are NaN are no background
HU_NOISE, HU_TISSUE, MIN_HU_SHARE = 100, 200, 0.1  # HU about air and about water, share of voxels
LIMIT_TOLERANCE = 1e-5  # relative: headers hold float32, and a turned axis is a root of squares


class QualityThresholds(Section):
    """Thresholds beyond which a scan is rejected."""

    min_axis_voxels: int = Field(8, ge=2, description="voxels along the shortest axis")
    min_fov_mm: float = Field(20.0, ge=0, description="extent of the shortest axis, mm")
    max_fov_mm: float = Field(2500.0, gt=0, description="extent of the longest axis, mm")
    min_spacing_mm: float = Field(0.05, ge=0, description="shortest side of a voxel, mm")
    max_spacing_mm: float = Field(10.0, gt=0, description="longest side of a voxel, mm")
    max_gib: float = Field(
        4.0, gt=0, description="memory for the voxels in float32, GiB; larger ones are not opened"
    )
    max_slice_offset_mm: float = Field(
        0.2, ge=0, description="distance of a slice from its place in an even stack, mm"
    )
    max_shear_deg: float = Field(
        35.0,
        ge=0,
        lt=90,
        description="departure of axes from a right angle, as by a tilted gantry, up to which"
        " preprocessing straightens a scan; 0 rejects every such scan",
    )
    reject_image_types: tuple[str, ...] = Field(
        (
            *("LOCALIZER", "SCOUT", "MPR", "REFORMATTED", "CPR", "MIP", "MINIP", "PROJECTION"),
            *("VOLUME RENDER", "VRT", "SSD", "SCREEN", "PERFUSION", "SUBTRACT", "MOSAIC"),
            *("INTENT LABEL", "INTENT STATISTIC"),
        ),
        description="beginnings of words in DICOM's ImageType that mark scouts and derived objects;"
        " of NIfTI, INTENT LABEL and INTENT STATISTIC stand for its intent_code",
    )
    max_saturated_share: float = Field(
        0.05, gt=0, le=1, description="share of voxels above the lowest value that have the highest"
    )
    max_flat_share: float = Field(
        0.6,
        gt=0,
        le=1,
        description="share of voxels, in the median over values, whose next one has the same value,"
        " as in a map of labels",
    )
    min_valid_share: float = Field(
        0.001,
        ge=0,
        le=1,
        description="share of voxels that hold a value: not NaN, infinite, or the missing value",
    )
    max_dark_hu: float = Field(
        -200.0,
        description="CT whose 1st percentile without padding is above this holds no air, HU;"
        " rejected where it is brighter than max_bright_hu, as HU + 1024 is, has no value below 0,"
        " or piles up at its lowest value, as a CT that was windowed does. CT whose 99th percentile"
        " is below it holds nothing but air, as where an offset was subtracted twice, and is"
        " rejected too",
    )
    max_bright_hu: float = Field(
        800.0, description="99th percentile of a CT without air, the 75th of one with padding, HU"
    )
    min_hu: float = Field(
        -1500.0,
        description="CT whose 1st percentile without padding is below this is not in HU",
    )
    max_lowest_share: float = Field(
        0.05, gt=0, le=1, description="share of voxels at the lowest value of a CT without air"
    )
    min_contrast_hu: float = Field(
        20.0, ge=0, description="1st to 99th percentile of a CT, HU; less is no scale of HU"
    )


class ScanQuality(NamedTuple):
    """Result of quality control: rejected for `fault`, else used, after `repair` if it has one.

    All are plain sentences, or empty; `note` is what may be a mistake of the study, and `review`
    says which fault a reader's decision lifted.
    """

    fault: str = ""
    repair: str = ""
    note: str = ""
    review: str = ""
    holds_image: bool = True  # False for what no reader can accept, such as a constant
    is_rejected_in_review: bool = False  # nothing but a reader's decision speaks against it


class _Fault(NamedTuple):
    text: str
    is_threshold: bool = True  # a reader may accept the scan all the same


@dataclass(frozen=True, eq=False)
class _ScanValues:
    """The values of a volume, found once for all checks that ask for them."""

    source: Volume
    missing_value: float | None  # as the root says

    @cached_property
    def volume(self) -> Volume:
        """The volume with the root's missing value too."""
        return self.source.with_missing_value(self.missing_value)

    @cached_property
    def measured(self) -> NDArray[Any]:
        """All that are finite and not missing: (n,), or the volume's array where all are."""
        data = self.volume.data
        valid = valid_mask(data, self.volume.missing_value)
        return data if valid.all() else data[valid]


def check_quality(
    volume: Volume,
    root: Root | None,
    thresholds: QualityThresholds,
    modality: str = "",
    decision: Decision | None = None,
) -> ScanQuality:
    """Check a volume against the thresholds; `modality` is what it is taken for.

    A reader's `decision` rejects any volume, or lifts the faults that are a matter of thresholds.
    """
    lifted, values = [], _ScanValues(volume, root.missing_value if root else None)
    for fault in _faults(values, root, thresholds, modality):
        if not (fault.is_threshold and decision and decision.verdict == "accept"):
            return ScanQuality(fault.text, holds_image=fault.is_threshold)
        lifted.append(fault.text)
    if decision and decision.verdict == "reject":
        return ScanQuality(f"{REJECTED} {decision.signature}", is_rejected_in_review=True)
    repairs = (volume.repair, _shear_repair(volume.affine), _value_repair(values))
    return ScanQuality(
        repair="; ".join(repair for repair in repairs if repair),
        note=_unit_note(values.measured) if modality == "MR" else "",
        review=f"accepted in review {decision.signature}, against: {'; '.join(lifted)}"
        if decision and lifted
        else "",
    )


def _faults(
    values: _ScanValues, root: Root | None, thresholds: QualityThresholds, modality: str
) -> Iterator[_Fault]:
    """The faults of a volume; later ones are looked for only where a reader lifts the earlier."""
    if fault := _image_type_fault(values.source, thresholds):
        yield _Fault(fault)
    if fault := _grid_fault(values.source, thresholds):
        yield _Fault(fault)
    if found := _intensity_fault(values, root, thresholds, modality):
        yield found


def size_fault(grid: VoxelGrid, thresholds: QualityThresholds) -> str:
    """Why a volume is too large to be opened; empty where it is not."""
    gib = 4 * float(np.prod(grid.shape, dtype=np.float64)) / 2**30
    if not _exceeds(gib, thresholds.max_gib):
        return ""
    size = " x ".join(str(side) for side in grid.shape)
    return (
        f"says that it has {size} voxels, {gib:.3g} GiB in memory; quality.max_gib is"
        f" {thresholds.max_gib:g}"
    )


def spacing_fault(slice_spacing: SliceSpacing | None, thresholds: QualityThresholds) -> str:
    """Why slices are not evenly spaced; empty where they are, or are not known."""
    if slice_spacing is None or not _exceeds(
        slice_spacing.max_offset_mm, thresholds.max_slice_offset_mm
    ):
        return ""
    if slice_spacing.changes_mm:
        distances = " to ".join(f"{gap:.4g}" for gap in slice_spacing.changes_mm)
        return f"the distance of its slices changes from {distances} mm; make a series of each part"
    gaps = f"gaps of {slice_spacing.min_gap_mm:.4g} to {slice_spacing.max_gap_mm:.4g} mm"
    if slice_spacing.max_gap_mm >= MISSING_GAP_RATIO * slice_spacing.median_gap_mm:
        return f"slices are missing ({gaps}); copy the whole series"
    return (
        f"its slices are unevenly spaced ({gaps}, up to {slice_spacing.max_offset_mm:.6g} mm off;"
        f" {thresholds.max_slice_offset_mm:g} mm is the limit)"
    )


def _image_type_fault(volume: Volume, thresholds: QualityThresholds) -> str:
    words = [word.upper().replace("_", " ") for word in volume.image_type]
    # Named by the study's own words: a header's may say anything.
    marked = [
        mark for mark in thresholds.reject_image_types if any(w.startswith(mark) for w in words)
    ]
    if not marked:
        return ""
    scout = any(mark in ("LOCALIZER", "SCOUT") for mark in marked)
    what = "a localizer" if scout else "a derived object, not a scan"
    place = "intent_code" if words[0].startswith(NIFTI_INTENT) else "ImageType"
    said = ", ".join(mark.removeprefix(NIFTI_INTENT) for mark in marked)
    return f"is {what}: its {place} says {said}"


def _grid_fault(volume: Volume, thresholds: QualityThresholds) -> str:
    spacing = geometry.spacing_mm(volume.affine)
    voxels = min(volume.data.shape)
    extents = [side * mm for side, mm in zip(volume.data.shape, spacing, strict=True)]
    shear = geometry.shear_deg(volume.affine)
    faults = [spacing_fault(volume.slice_spacing, thresholds)]
    if voxels < thresholds.min_axis_voxels:
        faults.append(
            f"only {voxels} voxels along its shortest axis; {thresholds.min_axis_voxels} are needed"
        )
    if _exceeds(thresholds.min_fov_mm, min(extents)):
        faults.append(
            f"only {min(extents):.6g} mm along its shortest axis;"
            f" {thresholds.min_fov_mm:g} are needed"
        )
    if _exceeds(max(extents), thresholds.max_fov_mm):
        faults.append(
            f"{max(extents):.6g} mm along its longest axis;"
            f" {thresholds.max_fov_mm:g} mm is the limit"
        )
    if _exceeds(thresholds.min_spacing_mm, min(spacing)):
        faults.append(
            f"voxels of only {min(spacing):.6g} mm; {thresholds.min_spacing_mm:g} mm is the limit"
        )
    if _exceeds(max(spacing), thresholds.max_spacing_mm):
        faults.append(
            f"voxels of up to {max(spacing):.6g} mm; {thresholds.max_spacing_mm:g} mm is the limit"
        )
    if _exceeds(shear, max(thresholds.max_shear_deg, geometry.SHEAR_TOLERANCE_DEG)):
        faults.append(f"its axes are {shear:.1f} degrees off a right angle, as by a tilted gantry")
    return "; ".join(fault for fault in faults if fault)


def _shear_repair(affine: NDArray[np.float64]) -> str:
    """What preprocessing does to sheared axes, in words; empty where they are straight."""
    shear = geometry.shear_deg(affine)
    if shear <= geometry.SHEAR_TOLERANCE_DEG:
        return ""
    return (
        f"its axes, {shear:.1f} degrees off a right angle as by a tilted gantry, are straightened"
    )


def _value_repair(values: _ScanValues) -> str:
    """What becomes of voxels that a computation spoiled, in words; empty where there are none.

    Infinity is never measured. NaN in many voxels is background; in a few it is no such thing.
    """
    data = values.source.data
    if data.dtype.kind != "f" or values.measured.size == data.size:
        return ""
    infinite = float(np.isinf(data).mean())
    spoiled = float(np.isnan(data).mean())
    kinds = [("infinite", infinite), ("NaN", spoiled if spoiled < MIN_BACKGROUND_SHARE else 0.0)]
    return "; ".join(
        f"{share:.2g} of its voxels are {kind}, and count as not measured"
        for kind, share in kinds
        if share
    )


def _unit_note(measured: NDArray[Any]) -> str:
    """What is to be said of an MR whose values lie where those of air and water do in HU."""
    sample = sample_values(measured).astype(np.float32)
    air = np.mean(np.abs(sample + 1000) <= HU_NOISE)
    water = np.mean(np.abs(sample) <= HU_TISSUE)
    if min(air, water) < MIN_HU_SHARE:
        return ""
    return "its values are those of CT, about -1000 and about 0: is its modality MR?"


def _intensity_fault(
    scan: _ScanValues, root: Root | None, thresholds: QualityThresholds, modality: str
) -> _Fault | None:
    data, values = scan.volume.data, scan.measured
    share = values.size / data.size
    if fault := _valid_fault(share, scan.volume.missing_value, thresholds):
        return fault
    low, high = values.min(), values.max()
    if low == high:
        return _Fault(f"every voxel has the same value, {low:g}", is_threshold=False)
    saturated = np.count_nonzero(values == high) / np.count_nonzero(values > low)
    if _exceeds(saturated, thresholds.max_saturated_share):
        return _Fault(
            f"{saturated:.0%} of the voxels above the lowest value have the highest, {high:g}:"
            " saturated, or a mask and no image"
        )
    flat = flat_share(data)
    if _exceeds(flat, thresholds.max_flat_share):
        return _Fault(
            f"{flat:.0%} of the voxels have the value of the next one: a map of labels and no image"
        )
    offset = root.intensity_offset if root else 0.0
    no_hu = _hounsfield_fault(values, offset, thresholds) if modality == "CT" else ""
    return _Fault(no_hu) if no_hu else None


def _valid_fault(
    share: float, missing: float | None, thresholds: QualityThresholds
) -> _Fault | None:
    """Why a scan of which this share of voxels holds a value is not used; None where it is."""
    if share == 0:
        stands = "NaN or infinite"
        if missing is not None:
            stands += f", or {missing:g}, which stands for nothing measured"
        return _Fault(f"every voxel is {stands}", is_threshold=False)
    if not _exceeds(thresholds.min_valid_share, share):
        return None
    return _Fault(
        f"only {share:.2g} of its voxels hold a value; {thresholds.min_valid_share:g} are needed"
    )


def _hounsfield_fault(values: NDArray[Any], offset: float, thresholds: QualityThresholds) -> str:
    """Why values plus `offset` cannot be Hounsfield units; empty where they can."""
    whole = sample_values(values)
    sample = without_padding(whole)
    upper = 99 if sample.size == whole.size else 75  # in a mask about a head, bone is over 1 %
    dark, usual, bright = np.percentile(sample, (1, upper, 99)) + offset
    low = float(sample.min()) + offset
    if bright - dark < thresholds.min_contrast_hu:
        return (
            f"nearly all values lie between {dark:.3g} and {bright:.3g}: no Hounsfield units; give"
            " the scan as the scanner wrote it"
        )
    if bright < thresholds.max_dark_hu:
        return (
            f"nearly all values lie below {bright:.0f}: no Hounsfield units, in which tissue is"
            " about 0; correct intensity_offset of this root"
        )
    if dark <= thresholds.max_dark_hu:
        return _range_fault(dark, float(np.percentile(sample, 75)) + offset, thresholds)
    if usual > thresholds.max_bright_hu:
        return (
            f"its values, {dark:.0f} to {bright:.0f}, are no Hounsfield units, in which air is"
            " -1000; set intensity_offset for this root"
        )
    lowest = np.count_nonzero(sample == sample.min()) / sample.size
    if low >= 0 or lowest > thresholds.max_lowest_share:
        return (
            f"its values, of which {lowest:.0%} are the lowest, {low:.0f}, are no Hounsfield units,"
            " in which air is -1000: windowed; give the scan as the scanner wrote it, or set"
            " missing_value for this root"
        )
    return ""


def _range_fault(dark: float, upper: float, thresholds: QualityThresholds) -> str:
    """Why values with air cannot be Hounsfield units, by their 1st and 75th percentile."""
    if dark < thresholds.min_hu:
        return (
            f"its values reach down to {dark:.0f}: no Hounsfield units, in which air is -1000;"
            " correct their scale or intensity_offset, or set missing_value for this root"
        )
    if upper > thresholds.max_bright_hu:
        return (
            f"a quarter of its values lie above {upper:.0f}: no Hounsfield units, or inverted ones;"
            " give the scan as the scanner wrote it"
        )
    return ""


def _exceeds(value: float, limit: float) -> bool:
    """Whether a value is above a limit by more than the precision of a header's numbers."""
    return bool(value > limit) and not math.isclose(value, limit, rel_tol=LIMIT_TOLERANCE)
