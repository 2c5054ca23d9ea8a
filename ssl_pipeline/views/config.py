"""The dials of crops, masks and augmentation (section `views` of a study)."""

import math
from typing import Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section

Triple = tuple[int, int, int]


class IntensityAugmentation(Section):
    """Changes of grey values, drawn for each view apart; the clean crop stays the target of MAE.

    Units are those of the model's input, in which a CT window or an MR's foreground has a standard
    deviation of about 1.
    """

    contrast: float = Field(0.3, ge=0, lt=1, description="largest relative change of contrast")
    brightness: float = Field(0.3, ge=0, description="largest shift, in units of the input")
    gamma: float = Field(
        0.3, ge=0, lt=1, description="largest log2-like change of gamma's exponent"
    )
    noise: float = Field(0.2, ge=0, description="largest standard deviation of added noise")
    noise_probability: float = Field(0.5, ge=0, le=1, description="share of views that get noise")
    blur_voxels: float = Field(1.0, ge=0, description="largest sigma of a Gaussian blur, in voxels")
    blur_probability: float = Field(0.2, ge=0, le=1, description="share of views that get blurred")
    window: float = Field(
        0.3, ge=0, lt=0.5, description="largest part of the range that is cut off at either end"
    )
    window_probability: float = Field(
        0.0, ge=0, le=1, description="share of views whose range is cut and spread again"
    )
    bias: float = Field(
        0.5, ge=0, description="largest log2 gain of a smooth field, as coils cause it in MR"
    )
    bias_probability: float = Field(
        0.0, ge=0, le=1, description="share of views that get such a field"
    )


class AffineAugmentation(Section):
    """Turns and zooms of a place, both views alike, so that they still see the same millimetres."""

    probability: float = Field(
        0.0, ge=0, le=1, description="share of places that are turned and zoomed"
    )
    rotation_deg: float = Field(
        15.0, ge=0, le=180, description="largest rotation about each axis, in degrees"
    )
    zoom: float = Field(
        0.2, ge=0, lt=1, description="largest log2 of the change of size, all axes alike"
    )


class Views(Section):
    """Two overlapping crops of one place, and which of their tokens the encoder sees."""

    crop_voxels: Triple = Field((32, 32, 32), description="size of a crop (z, y, x), in voxels")
    overlap: tuple[float, float] = Field(
        (0.4, 0.8), description="least and largest share of a crop that both views see"
    )
    visible_ratio: float = Field(
        0.25, gt=0, lt=1, description="share of tokens that the encoder sees"
    )
    max_background: float = Field(
        0.2, ge=0, le=1, description="largest share of the seen tokens outside the body"
    )
    min_valid: float = Field(
        0.5,
        ge=0,
        le=1,
        description="least share of what is read of a place that must be stored voxels",
    )
    flip: tuple[Literal["x", "y", "z"], ...] = Field(
        (), description="axes that may be mirrored, both views alike; none where sides matter"
    )
    affine: AffineAugmentation = AffineAugmentation()
    steps_per_read: int = Field(
        1,
        ge=1,
        description="steps in a row that draw their views from one read of their places; more "
        "spares the reader, and shows a step no new subjects",
    )
    intensity: IntensityAugmentation = IntensityAugmentation()

    @property
    def block_voxels(self) -> Triple:
        """What is read of a place (z, y, x): room for two crops, however they overlap."""
        z, y, x = (c + math.floor((1 - self.overlap[0]) * c) for c in self.crop_voxels)
        return z, y, x

    @model_validator(mode="after")
    def _ordered(self) -> "Views":
        low, high = self.overlap
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"overlap is [{low}, {high}]: give two shares, 0 < least <= largest <= 1"
            )
        if not self.min_valid >= self.visible_ratio:
            raise ValueError(
                f"min_valid is {self.min_valid}, below visible_ratio, {self.visible_ratio}: a crop could lack tokens"
            )
        return self
