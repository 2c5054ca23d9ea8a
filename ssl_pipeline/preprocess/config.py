"""Settings of preprocessing (section `preprocess` of a study).

CT keeps Hounsfield units, so its settings are absolute and the same for every scan; MR has no unit,
so its settings are percentiles of each scan's own foreground. All triples of a study have the order
of the stored arrays, (z, y, x): z from feet to head, y to the front, x to the right. Spacing None
keeps each scan's own grid: no voxel is interpolated, and the token geometry reads the spacing from
the volume.
"""

from collections.abc import Collection
from typing import Literal, TypeVar

from pydantic import Field, field_validator

from ssl_pipeline.config.automatic import AutoSpacing, is_auto
from ssl_pipeline.config.section import Section
from ssl_pipeline.types import Spacing


def _check_positive(key: str, spacing: Spacing) -> None:
    if min(spacing) <= 0:
        raise ValueError(
            f"{key} is {list(spacing)}: give three positive numbers, in the order (z, y, x): "
            "z from feet to head, y to the front, x to the right"
        )


def _check_ordered(limits: tuple[float, float] | tuple[int, int], name: str) -> None:
    if not limits[0] < limits[1]:
        raise ValueError(f"{name} is {list(limits)}: give a lower number and a higher one")


Modality = TypeVar("Modality", bound="ModalitySettings")


class ModalitySettings(Section):
    """What both modalities have: the spacing of their volumes."""

    spacing_mm: AutoSpacing | None = Field(
        default=None,
        description="voxel size (z, y, x) of the stored grid in mm, z from feet to head; null keeps"
        " the scan's own, auto plans one for each root from its training scans",
    )
    spacing_by_root: dict[str, Spacing] = Field(
        default={}, description="spacing_mm of roots, by name, where it is another"
    )

    @field_validator("spacing_mm")
    @classmethod
    def _spacing(cls, value: Spacing | None) -> Spacing | None:
        if value is not None and not is_auto(value):
            _check_positive("spacing_mm", value)
        return value

    @field_validator("spacing_by_root")
    @classmethod
    def _root_spacing(cls, value: dict[str, Spacing]) -> dict[str, Spacing]:
        for root, spacing in value.items():
            _check_positive(f"spacing_by_root.{root}", spacing)
        return value

    def for_roots(self: Modality, roots: Collection[str]) -> Modality:
        """The settings with the one spacing of these roots; as they are where they have several."""
        spacings = {self.spacing_by_root.get(root, self.spacing_mm) for root in roots}
        if len(spacings) != 1:
            return self
        return self.model_copy(update={"spacing_mm": spacings.pop(), "spacing_by_root": {}})


class Ct(ModalitySettings):
    """How CT is stored and scaled for a model."""

    clip_hu: tuple[int, int] = Field(
        default=(-1024, 3071),
        description="values in HU are clipped to this range before they are stored",
    )
    window_hu: tuple[float, float] = Field(
        default=(-1000.0, 1000.0),
        description="values in HU are clipped to this range for the model",
    )
    foreground_hu: float = Field(
        default=-500.0,
        description="voxels above it, in HU, are body; regions below it are where they are lung",
    )

    @field_validator("clip_hu")
    @classmethod
    def _clip(cls, value: tuple[int, int]) -> tuple[int, int]:
        _check_ordered(value, "clip_hu")
        if value[0] < -32768 or value[1] > 32767:
            raise ValueError(f"clip_hu is {list(value)}: stay within -32768 and 32767")
        return value

    @field_validator("window_hu")
    @classmethod
    def _window(cls, value: tuple[float, float]) -> tuple[float, float]:
        _check_ordered(value, "window_hu")
        return value


class Mr(ModalitySettings):
    """How MR is stored and scaled for a model."""

    percentiles: tuple[float, float] = Field(
        default=(0.5, 99.5),
        description="percentiles of the foreground that a model's input is clipped to",
    )

    @field_validator("percentiles")
    @classmethod
    def _percentiles(cls, value: tuple[float, float]) -> tuple[float, float]:
        _check_ordered(value, "percentiles")
        if value[0] < 0 or value[1] > 100:
            raise ValueError(f"percentiles is {list(value)}: stay within 0 and 100")
        return value


class Preprocess(Section):
    """From a scan as read to the volume that is stored."""

    ct: Ct = Field(default=Ct(), description="settings of CT")
    mr: Mr = Field(default=Mr(), description="settings of MR")
    interpolation_order: Literal[0, 1, 3] = Field(
        default=3, description="spline order of resampling: 3 cubic, 1 linear, 0 nearest"
    )
    straighten: bool = Field(
        default=False,
        description="resample oblique scans onto the axes R, A, S; else the rotation stays in the"
        " affine",
    )
    thick_slice_ratio: float = Field(
        default=3.0,
        ge=1,
        description="slices thicker than this many pixels are repeated, not interpolated",
    )
    foreground: Literal["auto", "all"] = Field(
        default="auto",
        description="auto finds the air around the body and crops it away; all takes every stored"
        " voxel",
    )
    margin_voxels: int = Field(
        default=5, ge=0, description="stored voxels kept around the foreground"
    )
    max_gib: float = Field(
        default=4.0,
        gt=0,
        description="a scan whose arrays would need more memory than this, in GiB, fails",
    )

    def modality_settings(self, modality: str) -> Ct | Mr:
        """The section of one modality."""
        return self.ct if modality == "CT" else self.mr

    def for_roots(self, roots: Collection[str]) -> "Preprocess":
        """The settings for scans of these roots, whose spacing is `spacing_mm` if they share it."""
        own = {"ct": self.ct.for_roots(roots), "mr": self.mr.for_roots(roots)}
        return self.model_copy(update=own)
