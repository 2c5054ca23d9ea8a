"""The settings that the two contrast terms of a preset share; imports no torch."""

from pydantic import Field, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.objectives.terms.local_contrast import (
    LocalContrast,
    NegativePatches,
    PositivePatches,
    check_distances,
)
from ssl_pipeline.objectives.terms.subject_contrast import (
    SimilarBy,
    SubjectContrast,
    check_similar_by,
)
from ssl_pipeline.objectives.terms.term import ProjectionDim, Ramp, Temperature, Term


class Contrast(Section):
    """Contrast between subjects (global) and between locations of one scan (local).

    The default weights were chosen by validation, on 240 subjects of CT and MR and ten minutes of
    training: local contrast improved the features, and that between subjects made them worse.
    """

    subject_weight: float = Field(0.0, ge=0, description="weight of the loss between subjects")
    local_weight: float = Field(
        0.1, ge=0, description="weight of the loss between locations of a scan"
    )
    similar_by: SimilarBy = Field({})
    temperature: Temperature = 0.1
    projection_dim: ProjectionDim = 128
    positive_patches: PositivePatches = 1.5
    negative_patches: NegativePatches = 2.0

    @model_validator(mode="after")
    def _check_terms(self) -> "Contrast":
        check_similar_by(self.similar_by, self.subject_weight)
        check_distances(self.positive_patches, self.negative_patches)
        return self

    def list_terms(self, ramp: Ramp | None) -> tuple[Term, ...]:
        """Both terms, with this ramp of their weights."""
        return (
            SubjectContrast(
                weight=self.subject_weight,
                ramp=ramp,
                similar_by=self.similar_by,
                temperature=self.temperature,
                projection_dim=self.projection_dim,
            ),
            LocalContrast(
                weight=self.local_weight,
                ramp=ramp,
                temperature=self.temperature,
                projection_dim=self.projection_dim,
                positive_patches=self.positive_patches,
                negative_patches=self.negative_patches,
            ),
        )
