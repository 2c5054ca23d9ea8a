"""The attentive probe: the encoder is frozen, and learned queries attend to its tokens.

Efficient Probing of Psomas et al. 2025 (arXiv:2506.10178): several queries, each of which weighs
tokens for a share of their features, and no projections. A mean over tokens hides what only a few
of them show, which is why encoders of masked reconstruction probe poorly by it.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from ssl_pipeline.evaluation.adaptation.adaptation import Adaptation

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder


class Attentive(Adaptation):
    """Attention over frozen tokens."""

    TITLE: ClassVar[str] = "attentive probe"
    SUPPORTS_SEGMENTATION: ClassVar[bool] = False

    name: Literal["attentive"] = "attentive"
    queries: PositiveInt = Field(
        8, description="queries, among which the features of a token are divided"
    )

    def adapt(self, encoder: "Encoder") -> None:
        """Nothing of the encoder is trained."""

    def pool(self, dim: int) -> "nn.Module":
        """Attention in place of the mean."""
        from ssl_pipeline.evaluation.data.pooling import AttentionPool

        return AttentionPool(dim, self.queries)
