"""KoLeo: nearest neighbours in a batch are pushed apart, so that embeddings fill their space."""

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.terms.term import FLOPS_PER_PARAMETER, TermCost, VectorTerm

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.term_inputs import Crops, Scalar, TermMetadata, Tokens, Vectors


class Koleo(VectorTerm):
    """Mean of - log of the distance to the nearest neighbour, on pooled tokens of each view.

    Sablayrolles et al. 2019 (arXiv:1806.03198), as DINOv2 uses it (Oquab et al. 2023,
    arXiv:2304.07193), with lightly's loss.
    """

    METRICS: ClassVar[dict[str, str]] = {
        "koleo": "mean of - log of the distance of unit embeddings to their nearest neighbour"
    }

    name: Literal["koleo"] = "koleo"

    def metadata_used(self) -> tuple[str, ...]:
        """None: all samples are neighbours."""
        return ()

    def min_batch_size(self) -> int:
        """Two: a sample needs a neighbour."""
        return 2 if self.weight else 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """That of a mean over tokens; there is no head."""
        return TermCost(0, FLOPS_PER_PARAMETER * visible * model.width, 0)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """No head: the embeddings themselves are spread."""
        from torch.nn import Identity

        return Identity()

    def vectors(self, head: "nn.Module", crops: "Crops", tokens: "Tokens") -> "Vectors":
        """The mean visible token inside the body."""
        return cast("Vectors", head(crops.pool_body(tokens)))

    def loss(self, first: "Vectors", second: "Vectors", metadata: "TermMetadata") -> "Scalar":
        """The mean over both views, whose neighbours are those of the same view."""
        import ssl_pipeline.torchvision_compat  # noqa: F401  (before lightly)

        from lightly.loss import KoLeoLoss

        koleo = KoLeoLoss()
        return cast("Scalar", (koleo(first) + koleo(second)) / 2)
