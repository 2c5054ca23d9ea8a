"""Contrast between locations of a scan: tokens of one location agree between its two views."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.monitoring.diagnosis import AlarmRule, Threshold
from ssl_pipeline.objectives.terms.term import (
    FLOPS_PER_PARAMETER,
    ProjectionDim,
    SummedTerm,
    Temperature,
    TermCost,
    projection_parameters,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.losses import TokenMatches
    from ssl_pipeline.objectives.term_inputs import (
        Crops,
        EncodedCrops,
        EncoderOutputs,
        Scalar,
        Tokens,
    )

PositivePatches = Annotated[
    float, Field(gt=0, description="largest distance of a positive pair of tokens, in patches")
]
NegativePatches = Annotated[
    float,
    Field(gt=0, description="distance beyond which tokens of one scan are negatives, in patches"),
]


class LocalContrast(SummedTerm):
    """Tokens of one location agree between views, and differ from distant ones of the scan."""

    METRICS: ClassVar[dict[str, str]] = {
        "local_contrast": "loss between locations of a scan, in nats",
        "local_contrast_real": "loss between locations on the snapshot samples, in nats",
        "local_contrast_empty": "loss between locations on crops without content, in nats",
        "local_contrast_swapped": "loss between locations where second views show another sample, "
        "in nats",
        "local_contrast_chance": "loss between locations where all tokens are equal, in nats",
        "empty_share": "fraction of the local loss's drop from chance that empty crops reach as "
        "well",
        "swapped_share": "fraction of that drop that is left where contents are swapped: 1 none "
        "used",
        "position_shortcut": "how far the local loss of empty crops, moved apart, falls below "
        "chance: 1 solved by knowing where crops lie, 0 or less by their content",
    }
    RULES: ClassVar[tuple[AlarmRule, ...]] = (
        (
            "shortcut",
            Threshold(
                "position_shortcut",
                maximum=lambda settings: settings.max_position_shortcut,
                message="The encoder knows where crops lie: without any content it solves "
                "{value:.0%} of the loss between locations (the alarm is above {limit:.0%}), by "
                "position and not by anatomy. Make sure that positions are relative to the crop "
                "alone.",
            ),
        ),
    )
    CONTRASTS_VIEWS: ClassVar[bool] = True

    name: Literal["local_contrast"] = "local_contrast"
    temperature: Temperature = 0.1
    projection_dim: ProjectionDim = 128
    positive_patches: PositivePatches = 1.5
    negative_patches: NegativePatches = 2.0

    @model_validator(mode="after")
    def _check_distances(self) -> "LocalContrast":
        check_distances(self.positive_patches, self.negative_patches)
        return self

    def metadata_used(self) -> tuple[str, ...]:
        """None: a scan is compared with itself."""
        return ()

    def min_batch_size(self) -> int:
        """One: samples are independent."""
        return 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the head, on the visible tokens."""
        parameters = projection_parameters(model.width, self.projection_dim)
        return TermCost(
            parameters,
            FLOPS_PER_PARAMETER * visible * parameters,
            visible * (3 * 4 * model.width + self.projection_dim),
        )

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The projection of tokens."""
        from ssl_pipeline.models.heads import projection_head

        return projection_head(encoder.dim, self.projection_dim)

    def count(self, crops: "Crops") -> "Scalar":
        """Anchors that have a partner and a negative, in both directions."""
        return _usable_count(*self._match_views(crops))

    def sum_and_count(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs"
    ) -> "tuple[Tensor, Tensor]":
        """Sum of the losses of those anchors, and how many they are."""
        return self._contrast_vectors(crops, head(outputs.tokens))

    def snapshot_metrics(self, head: "nn.Module", encoded: "EncodedCrops") -> dict[str, float]:
        """Whether locations are matched by content, by where crops lie, or by chance."""
        import torch

        from ssl_pipeline.monitoring.shortcuts import measure_position_shortcut, separate_views
        from ssl_pipeline.objectives.term_inputs import Crops

        def loss(images: "Tensor", crops: "Crops" = encoded.crops) -> "Tensor":
            with encoded.autocast():
                outputs = encoded.encode(crops, images, self.passes)
                return _mean(*self.sum_and_count(head, crops, outputs))

        batch, patch = encoded.crops.batch, encoded.crops.patch
        # A little farther than the distance of negatives, which occurs in training too.
        apart = Crops(separate_views(batch, self.negative_patches + 0.25, patch), patch)
        equal = torch.zeros_like(encoded.outputs.tokens[..., :1], dtype=torch.float32)
        with torch.no_grad():
            chance = _mean(*self._contrast_vectors(encoded.crops, equal)).item()
            local = measure_position_shortcut(loss, encoded.images, chance)
            placed = loss(torch.zeros_like(encoded.images), apart)
            placed = placed / _mean(*self._contrast_vectors(apart, equal))
        return {
            "local_contrast_real": local.real,
            "local_contrast_empty": local.empty,
            "local_contrast_swapped": local.swapped,
            "local_contrast_chance": local.chance,
            "position_shortcut": 1 - placed.item(),
            "empty_share": local.empty_share,
            "swapped_share": local.swapped_share,
        }

    def _contrast_vectors(self, crops: "Crops", vectors: "Tokens") -> "tuple[Tensor, Tensor]":
        """Sum and count of the losses of projected tokens."""
        from ssl_pipeline.objectives.losses import local_contrast_loss

        first, second = vectors.chunk(2)
        there, back = self._match_views(crops)
        total = local_contrast_loss(first, second, there, self.temperature)
        total = total + local_contrast_loss(second, first, back, self.temperature)
        return total, _usable_count(there, back)

    def _match_views(self, crops: "Crops") -> "tuple[TokenMatches, TokenMatches]":
        """Matches of the visible tokens of first views to those of second ones, and back."""
        import torch

        from ssl_pipeline.objectives.losses import match_tokens
        from ssl_pipeline.views.patches import gather_tokens

        batch = crops.batch
        first, second = gather_tokens(crops.places_mm(), batch.visible).chunk(2)
        patch_mm = crops.patch_mm()[:, None, None]
        distance = ((first[:, :, None] - second[:, None]) / patch_mm).abs().amax(dim=-1)
        distance = distance.masked_fill(~batch.meta.shares_place[:, None, None], torch.inf)
        limits = {"positive": self.positive_patches, "negative": self.negative_patches}
        forth = match_tokens(distance, **limits)
        return forth, match_tokens(distance.transpose(1, 2), **limits)


def check_distances(positive_patches: float, negative_patches: float) -> None:
    """Raise ValueError where a pair of tokens would be both positive and negative."""
    if negative_patches < positive_patches:
        raise ValueError(
            f"negative_patches is {negative_patches}, below positive_patches, {positive_patches}: "
            "a pair would be both"
        )


def _mean(total: "Tensor", count: "Tensor") -> "Tensor":
    return total / count.clamp(min=1)


def _usable_count(forth: "TokenMatches", back: "TokenMatches") -> "Scalar":
    return (forth.is_usable.sum() + back.is_usable.sum()).float()
