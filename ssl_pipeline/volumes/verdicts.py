"""Which volumes are fit to learn from, and in plain words why one is not.

Sizes are judged in mm, for a voxel count means nothing without its spacing. The defaults are wide,
and take crops of 24 mm as well as whole bodies; a study of large archives should narrow them.
"""

import numpy as np
from pydantic import Field

from ssl_pipeline.section import Section
from ssl_pipeline.volumes import geometry
from ssl_pipeline.volumes.dataset import Root
from ssl_pipeline.volumes.volume import Volume


class Quality(Section):
    """Thresholds below which a scan is rejected."""

    min_axis_voxels: int = Field(8, ge=2, description="voxels along the shortest axis")
    min_fov_mm: float = Field(20.0, ge=0, description="extent of the shortest axis, mm")
    max_spacing_mm: float = Field(10.0, gt=0, description="longest side of a voxel, mm")
    max_shear_deg: float = Field(1.0, ge=0, description="departure of axes from a right angle")
    max_saturated_share: float = Field(
        0.05, gt=0, le=1, description="share of voxels above the lowest value that have the highest"
    )


def judge(volume: Volume, root: Root | None, quality: Quality) -> str:
    """Empty where the volume is accepted, else why not, in one plain sentence."""
    return _judge_grid(volume, quality) or _judge_values(volume, root, quality)


def _judge_grid(volume: Volume, quality: Quality) -> str:
    spacing = geometry.spacing_mm(volume.affine)
    voxels = min(volume.data.shape)
    extent = min(side * mm for side, mm in zip(volume.data.shape, spacing, strict=True))
    shear = geometry.shear_deg(volume.affine)
    if voxels < quality.min_axis_voxels:
        return f"only {voxels} voxels along its shortest axis; {quality.min_axis_voxels} are needed"
    if extent < quality.min_fov_mm:
        return f"only {extent:.3g} mm along its shortest axis; {quality.min_fov_mm:g} are needed"
    if max(spacing) > quality.max_spacing_mm:
        return f"voxels of up to {max(spacing):.3g} mm; {quality.max_spacing_mm:g} mm is the limit"
    if shear > quality.max_shear_deg:
        return f"its axes are {shear:.1f} degrees off a right angle, as by a tilted gantry"
    return ""


def _judge_values(volume: Volume, root: Root | None, quality: Quality) -> str:
    data = volume.data
    missing = root.missing_value if root else None
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        return f"{np.count_nonzero(~np.isfinite(data))} voxels are NaN or infinite"
    values = data[data != missing] if missing is not None else data
    if values.size == 0:
        return f"every voxel has the value {missing:g}, which stands for nothing measured"
    low, high = values.min(), values.max()
    if low == high:
        return f"every voxel has the same value, {low:g}"
    saturated = np.count_nonzero(values == high) / np.count_nonzero(values > low)
    if saturated > quality.max_saturated_share:
        return (
            f"{saturated:.0%} of the voxels above the lowest value have the highest, {high:g}:"
            " saturated, or a mask and no image"
        )
    return ""
