"""Settings of the terms of objectives; imports no torch."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section

Width = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Reconstruction(Section):
    """Masked reconstruction of the clean crop."""

    weight: float = Field(1.0, ge=0, description="weight in the sum of losses")
    background_weight: float = Field(
        0.1, ge=0, le=1, description="weight of a patch outside the body against one inside"
    )
    decoder_width: int | None = Field(
        None, gt=0, description="width of the decoder; half the encoder's by default"
    )
    decoder_depth: int = Field(2, ge=1, description="blocks of the decoder")
    normalize_patches: bool = Field(
        False,
        description="reconstruct each patch normalized by its own mean and standard deviation, so "
        "that texture counts as much as bone; images then take both from the scan, and skill is "
        "not measured",
    )
    decode_ratio: float = Field(
        1.0,
        gt=0,
        le=1,
        description="fraction of the hidden tokens that is decoded, drawn each step",
    )


class Contrast(Section):
    """Contrast between subjects (global) and between locations of one scan (local).

    The default weights were chosen by validation, on 240 subjects of CT and MR and ten minutes of
    training: between subjects, every weight above 0 made the features worse, for they then
    distinguish patients. With thousands of subjects it may help; `ablate` measures it.
    """

    subject_weight: float = Field(0.0, ge=0, description="weight of the loss between subjects")
    local_weight: float = Field(
        0.1, ge=0, description="weight of the loss between locations of a scan"
    )
    similar_by: dict[str, Width | Literal["equal"]] = Field(
        {},
        description="metadata by which similar subjects count less as negatives: for a number the "
        "width of its kernel (age: 10), for a word `equal` (region: equal); targets, root, site or "
        "modality",
    )
    temperature: float = Field(0.1, gt=0, description="divisor of the cosine similarities")
    projection_dim: int = Field(128, gt=0, description="width of the projected vectors")
    positive_patches: float = Field(
        1.5, gt=0, description="largest distance of a positive pair of tokens, in patches"
    )
    negative_patches: float = Field(
        2.0, gt=0, description="distance beyond which tokens of one scan are negatives, in patches"
    )

    @model_validator(mode="after")
    def _check_similar_by(self) -> "Contrast":
        if self.similar_by and not self.subject_weight:
            raise ValueError(
                "similar_by is about the loss between subjects, and subject_weight is 0: give it a "
                "weight, or leave similar_by out"
            )
        return self

    @model_validator(mode="after")
    def _check_distances(self) -> "Contrast":
        if self.negative_patches < self.positive_patches:
            raise ValueError(
                f"negative_patches is {self.negative_patches}, below positive_patches, "
                f"{self.positive_patches}: a pair would be both"
            )
        return self


class Ramp(Section):
    """Ramp of the contrast weights: 0 until `start`, a half cosine up to 1 at `end`."""

    start: float = Field(0.05, ge=0, le=1, description="fraction of the run after which it begins")
    end: float = Field(0.15, ge=0, le=1, description="fraction of the run at which it reaches 1")

    @model_validator(mode="after")
    def _ordered(self) -> "Ramp":
        if self.end < self.start:
            raise ValueError(f"end is {self.end}, before start, {self.start}")
        return self

    def factor(self, progress: float) -> float:
        """The factor after this fraction of the run."""
        if progress < self.start:
            return 0.0
        if progress >= self.end:
            return 1.0
        return 0.5 - 0.5 * math.cos(math.pi * (progress - self.start) / (self.end - self.start))
