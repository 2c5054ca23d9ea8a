"""LeJEPA: views of a sample agree, and embeddings are spread like a Gaussian; without negatives.

Neither teacher nor negatives, so nothing depends on who is similar to whom. Its test of a Gaussian
needs many samples: with two a step, equal embeddings have the better score, and with 8 those of
rank 4 hardly a worse one, so that small batches are refused.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.terms.term import (
    FLOPS_PER_PARAMETER,
    TermCost,
    VectorTerm,
    projection_parameters,
)

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.term_inputs import Crops, Scalar, TermMetadata, Tokens, Vectors

MIN_BATCH_SIZE = 32


class Lejepa(VectorTerm):
    """(1 - l) invariance + l SIGReg (Balestriero & LeCun 2025, arXiv:2511.08544)."""

    METRICS: ClassVar[dict[str, str]] = {
        "lejepa": "weighted mean of invariance and distance from a Gaussian",
        "lejepa_invariance": "squared distance of a projection from the mean of its two views",
        "lejepa_sigreg": "distance of projections from a Gaussian (SIGReg): about 1 for one",
    }
    CONTRASTS_VIEWS: ClassVar[bool] = True

    name: Literal["lejepa"] = "lejepa"
    sigreg_weight: float = Field(
        0.05, gt=0, lt=1, description="weight of the Gaussian against that of invariance, of 1"
    )
    projection_dim: int = Field(64, gt=0, description="width of the projected vectors")
    directions: int = Field(
        1024, ge=1, description="random directions along which projections are compared each step"
    )

    def metadata_used(self) -> tuple[str, ...]:
        """None: no sample is compared with another."""
        return ()

    def min_batch_size(self) -> int:
        """Enough samples to see that they are no Gaussian, over all ranks and parts of a step."""
        return MIN_BATCH_SIZE if self.weight else 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the head, on one vector of a view, and of its projection on the directions."""
        parameters = projection_parameters(model.width, self.projection_dim)
        products = parameters + self.projection_dim * self.directions
        return TermCost(parameters, FLOPS_PER_PARAMETER * products, 0)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The projection of pooled tokens."""
        from ssl_pipeline.models.heads import projection_head

        return projection_head(encoder.dim, self.projection_dim)

    def vectors(self, head: "nn.Module", crops: "Crops", tokens: "Tokens") -> "Vectors":
        """Projections of the mean over the visible tokens inside the body."""
        return cast("Vectors", head(crops.pool_body(tokens)))

    def loss(self, first: "Vectors", second: "Vectors", metadata: "TermMetadata") -> "Scalar":
        """Invariance and SIGReg of the projections of all samples."""
        invariance, sigreg = self._parts(first, second, metadata)
        return (1 - self.sigreg_weight) * invariance + self.sigreg_weight * sigreg

    def snapshot_metrics(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> dict[str, float]:
        """Both parts of the loss."""
        invariance, sigreg = self._parts(first, second, metadata)
        return {"lejepa_invariance": invariance.item(), "lejepa_sigreg": sigreg.item()}

    def _parts(
        self, first: "Vectors", second: "Vectors", metadata: "TermMetadata"
    ) -> "tuple[Scalar, Scalar]":
        """Invariance and SIGReg; its directions are drawn by the numbers of the samples."""
        import ssl_pipeline.torchvision_compat  # noqa: F401  (before lightly)

        import torch
        from lightly.loss.lejepa_loss import SIGReg, lejepa_invariance_loss

        from ssl_pipeline.views.rng import rng_key

        both = torch.stack([first, second])
        sigreg = SIGReg(num_vectors=self.directions).to(both.device)
        with torch.random.fork_rng([both.device] if both.is_cuda else []):
            torch.manual_seed(rng_key(0, int(metadata.number.min()), "directions") % 2**63)
            distance = sigreg(both)
        return lejepa_invariance_loss(all_proj=both, global_proj=both), distance
