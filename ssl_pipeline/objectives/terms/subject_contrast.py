"""Contrast between subjects: one projected vector per view against those of other subjects.

Between subjects, every weight above 0 made the features worse on 240 subjects of CT and MR and ten
minutes of training, for they then distinguish patients. With thousands of subjects it may help;
`ablate` measures it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.monitoring.diagnosis import AlarmRule, Threshold
from ssl_pipeline.objectives.metadata_similarity import metadata_features
from ssl_pipeline.objectives.terms.term import (
    FLOPS_PER_PARAMETER,
    ProjectionDim,
    Temperature,
    TermCost,
    VectorTerm,
    projection_parameters,
)
from ssl_pipeline.store.catalog import ScanRow

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.term_inputs import Crops, Scalar, TermMetadata, Tokens, Vectors

MIN_BATCH_SIZE = 16  # with fewer negatives the loss between subjects is near its chance
KernelWidth = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SimilarBy = Annotated[
    dict[str, KernelWidth | Literal["equal"]],
    Field(
        description="metadata by which similar subjects count less as negatives: for a number the "
        "width of its kernel (age: 10), for a word `equal` (region: equal); targets, root, site or "
        "modality"
    ),
]


class SubjectContrast(VectorTerm):
    """Contrast between the subjects of a batch, who may be more or less similar by metadata.

    Without weight its head is not trained; monitoring still measures its projections.
    """

    METRICS: ClassVar[dict[str, str]] = {
        "subject_contrast": "loss between subjects, in nats",
        "subject_contrast_snapshot": "loss between subjects on the snapshot samples, in nats",
        "subject_contrast_chance": "the same where all vectors are equal, in nats",
        "same_subject_loss": "loss between subjects, in nats, where all samples are of one: 0 "
        "correct",
        "alignment": "squared distance of the two views of a sample: 0 equal, 2 unrelated",
        "uniformity": "how evenly projections fill the sphere: about -4 evenly, 0 collapsed",
        "dimension_std": "scaled standard deviation per dimension of unit projections: 1 even, 0 "
        "collapsed",
        "close_negative_share": "fraction of pairs of different subjects whose cosine is above 0.9",
    }
    RULES: ClassVar[tuple[AlarmRule, ...]] = (
        (
            "collapsed",
            Threshold(
                "dimension_std",
                minimum=lambda settings: settings.min_dimension_std,
                after=lambda settings: settings.collapse_after,
                message="Samples of all subjects have nearly one embedding: its spread is "
                "{value:.2f} (about 1 is healthy, the alarm is below {limit:g}). Raise "
                "training.batch_size or objective.contrast.subject_weight, or lower "
                "training.learning_rate.",
            ),
        ),
        (
            "collapsed",
            Threshold(
                "uniformity",
                maximum=lambda settings: settings.max_uniformity,
                after=lambda settings: settings.collapse_after,
                message="Embeddings crowd into one part of the sphere: their uniformity is "
                "{value:.2f} (about -4 is even, 0 is one point, the alarm is above {limit:g}). "
                "Raise training.batch_size, or lower objective.contrast.temperature.",
            ),
        ),
        (
            "collapsed",
            Threshold(
                "subject_contrast_chance",
                minus="subject_contrast_snapshot",
                minimum=lambda settings: settings.min_chance_margin,
                after=lambda settings: settings.collapse_after,
                message="The loss between subjects is {value:.2f} below chance (the alarm is below "
                "{limit:g}): subjects are not distinguished. Raise training.learning_rate or "
                "training.batch_size, or lower objective.contrast.temperature.",
            ),
        ),
        (
            "shortcut",
            Threshold(
                "same_subject_loss",
                maximum=lambda settings: settings.max_same_subject_loss,
                message="Samples of one subject are negatives of each other: where all samples are "
                "of one, the loss between subjects is {value:.2f} nats (0 is correct, the alarm is "
                "above {limit:g}). Make sure that the objective compares subjects alone.",
            ),
        ),
    )
    CONTRASTS_VIEWS: ClassVar[bool] = True
    EXCLUDES_SUBJECT: ClassVar[bool] = True

    name: Literal["subject_contrast"] = "subject_contrast"
    similar_by: SimilarBy = Field({})
    temperature: Temperature = 0.1
    projection_dim: ProjectionDim = 128

    @model_validator(mode="after")
    def _check_similar_by(self) -> "SubjectContrast":
        check_similar_by(self.similar_by, self.weight)
        return self

    def metadata_used(self) -> tuple[str, ...]:
        """The metadata by which subjects are similar."""
        return tuple(self.similar_by)

    def min_batch_size(self) -> int:
        """Enough subjects for negatives, over all ranks and parts of a step."""
        return MIN_BATCH_SIZE if self.weight else 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the head, on one vector of a view, whose activations are next to nothing."""
        parameters = projection_parameters(model.width, self.projection_dim)
        return TermCost(parameters, FLOPS_PER_PARAMETER * parameters, 0)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The projection of pooled tokens."""
        from ssl_pipeline.models.heads import projection_head

        return projection_head(encoder.dim, self.projection_dim)

    def metadata_features(
        self, entries: Sequence[ScanRow]
    ) -> Float[NDArray[np.float32], "n names"]:
        """The metadata of scans in units of their kernel widths."""
        return metadata_features(entries, self.similar_by)

    def vectors(self, head: "nn.Module", crops: "Crops", tokens: "Tokens") -> "Vectors":
        """Projections of the mean over the visible tokens inside the body."""
        return cast("Vectors", head(crops.pool_body(tokens)))

    def loss(self, first: "Vectors", second: "Vectors", metadata: "TermMetadata") -> "Scalar":
        """Decoupled InfoNCE with the views of other subjects as negatives."""
        from ssl_pipeline.objectives.losses import subject_contrast_loss

        return subject_contrast_loss(
            first, second, metadata.subject, metadata.features, self.temperature
        )

    def snapshot_metrics(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> dict[str, float]:
        """Distribution of the projections, and the loss where the encoder is trained by it."""
        from ssl_pipeline.monitoring import collapse

        distribution = {
            "alignment": collapse.alignment(first, second),
            "uniformity": collapse.uniformity(first),
            "dimension_std": collapse.dimension_std(first),
            "close_negative_share": collapse.close_negative_share(first, metadata.subject),
        }
        return (
            {**distribution, **self._loss_levels(first, second, metadata)}
            if self.weight
            else distribution
        )

    def _loss_levels(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> dict[str, float]:
        """The loss, and its chance level."""
        from ssl_pipeline.objectives.losses import subject_contrast_chance, subject_contrast_loss

        known = metadata.subject, metadata.features
        return {
            "subject_contrast_snapshot": subject_contrast_loss(
                first, second, *known, self.temperature
            ).item(),
            "subject_contrast_chance": subject_contrast_chance(*known),
        }


def check_similar_by(similar_by: SimilarBy, weight: float) -> None:
    """Raise ValueError where metadata are named for a loss that has no weight."""
    if similar_by and not weight:
        raise ValueError(
            "similar_by is about the loss between subjects, whose weight is 0: give it a weight, "
            "or leave similar_by out"
        )
