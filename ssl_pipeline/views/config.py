"""Settings of crops, masking and augmentation (section `views` of a study)."""

import math
from typing import Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.automatic import AutoTriple
from ssl_pipeline.config.section import Section
from ssl_pipeline.types import Triple, triple


class IntensityAugmentation(Section):
    """Intensity augmentation, drawn independently for each view; MAE reconstructs the clean crop.

    Units are those of the model's input, in which a CT window or an MR's foreground has a standard
    deviation of about 1.
    """

    contrast: float = Field(0.3, ge=0, lt=1, description="largest relative change of contrast")
    brightness: float = Field(0.3, ge=0, description="largest shift, in units of the input")
    gamma: float = Field(
        0.3, ge=0, lt=1, description="largest log2-like change of gamma's exponent"
    )
    noise: float = Field(0.2, ge=0, description="largest standard deviation of added noise")
    noise_probability: float = Field(
        0.5, ge=0, le=1, description="fraction of views that get noise"
    )
    blur_voxels: float = Field(1.0, ge=0, description="largest sigma of a Gaussian blur, in voxels")
    blur_probability: float = Field(
        0.2, ge=0, le=1, description="fraction of views that are blurred"
    )
    low_resolution: float = Field(
        2.0, ge=1, description="largest size of the voxels of a coarser scan, in voxels"
    )
    low_resolution_probability: float = Field(
        0.0, ge=0, le=1, description="fraction of views that look as if scanned more coarsely"
    )
    window: float = Field(
        0.3, ge=0, lt=0.5, description="largest fraction of the range that is cut off at either end"
    )
    window_probability: float = Field(
        0.0, ge=0, le=1, description="fraction of views whose range is cut and stretched"
    )
    bias: float = Field(
        0.5, ge=0, description="largest log2 gain of a smooth bias field, as coils cause it in MR"
    )
    bias_probability: float = Field(
        0.0, ge=0, le=1, description="fraction of views that get a bias field"
    )


class AffineAugmentation(Section):
    """Rotation and zoom of a sample, the same for both views, so that they stay aligned."""

    probability: float = Field(
        0.0, ge=0, le=1, description="fraction of samples that are rotated and zoomed"
    )
    rotation_deg: float = Field(
        15.0, ge=0, le=180, description="largest rotation about each axis, in degrees"
    )
    zoom: float = Field(
        0.2, ge=0, lt=1, description="largest log2 of the scale factor, the same for all axes"
    )


class Recolour(Section):
    """Random grey values for classes of intensity: the same place under other physics.

    They are drawn for second views alone, before `intensity`.
    """

    probability: float = Field(
        0.0, ge=0, le=1, description="fraction of samples whose second view is recoloured"
    )
    classes: int = Field(
        6, ge=2, le=32, description="classes that the intensities of a view are divided into"
    )


class LocalCrops(Section):
    """Boxes of patches of each view, of which self-distillation asks what whole views are."""

    number: int = Field(0, ge=0, le=16, description="local crops of each view; each costs a pass")
    share: float = Field(
        0.25, gt=0, lt=1, description="fraction of a view's volume that a local crop has"
    )

    def box(self, grid: Triple) -> Triple:
        """Sides of a local crop in patches, of a view of `grid` patches (z, y, x)."""
        scale = self.share ** (1 / 3)
        return triple(max(1, round(scale * side)) for side in grid)


class Views(Section):
    """Two overlapping crops of one location, and which of their tokens the encoder sees."""

    crop_voxels: AutoTriple = Field(
        (32, 32, 32),
        description="size of a crop (z, y, x), in voxels; auto plans the largest that fits into"
        " plan.memory_gib",
    )
    overlap: tuple[float, float] = Field(
        (0.4, 0.8), description="smallest and largest fraction of a crop that both views share"
    )
    partner: Literal["scan", "visit"] = Field(
        "scan",
        description="where the second view comes from: the same scan, or another one of the same"
        " visit, at the same millimetres where both share a frame; a visit with one scan uses that",
    )
    visible_ratio: float = Field(
        0.25, gt=0, lt=1, description="fraction of tokens that the encoder sees (1 - mask ratio)"
    )
    max_background: float = Field(
        0.2, ge=0, le=1, description="largest fraction of the visible tokens outside the body"
    )
    min_valid: float = Field(
        0.5,
        ge=0,
        le=1,
        description="smallest fraction of valid voxels in a block that is read",
    )
    flip: tuple[Literal["x", "y", "z"], ...] = Field(
        (), description="axes that may be flipped, in both views at once; none where sides matter"
    )
    affine: AffineAugmentation = AffineAugmentation()
    steps_per_read: int = Field(
        1,
        ge=1,
        description="consecutive steps that draw their views from the same blocks; more means less "
        "reading, and no new subjects in those steps",
    )
    intensity: IntensityAugmentation = IntensityAugmentation()
    recolour: Recolour = Recolour()
    local_crops: LocalCrops = LocalCrops()

    @property
    def block_voxels(self) -> Triple:
        """Size of the block read for a sample (z, y, x): room for two crops at any overlap."""
        return triple(c + math.floor((1 - self.overlap[0]) * c) for c in self.crop_voxels)

    @property
    def max_blocks(self) -> int:
        """Blocks that are read for a sample at most: one, or another of a partner."""
        return 2 if self.partner == "visit" else 1

    @model_validator(mode="after")
    def _ordered(self) -> "Views":
        low, high = self.overlap
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"overlap is [{low}, {high}]: give two fractions, 0 < smallest <= largest <= 1"
            )
        if not self.min_valid >= self.visible_ratio:
            raise ValueError(
                f"min_valid is {self.min_valid}, below visible_ratio, {self.visible_ratio}: a crop "
                "could lack tokens"
            )
        return self
