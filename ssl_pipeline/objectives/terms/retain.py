"""Retention: tokens stay near those of the encoder that a run starts from.

For where old scans may not be kept, so that nothing of them can be replayed. The old encoder sees
the same visible patches (Ye et al. 2024, arXiv:2311.17597, do so on replayed scans).
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.terms.term import FLOPS_PER_PARAMETER, SummedTerm, TermCost

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.term_inputs import Crops, EncoderOutputs, EncoderPass, Scalar


class Retain(SummedTerm):
    """Mean squared difference of visible tokens from those of the encoder as the run began."""

    METRICS: ClassVar[dict[str, str]] = {
        "retain": "mean squared difference of tokens from those that the run started with"
    }

    name: Literal["retain"] = "retain"

    @property
    def passes(self) -> "frozenset[EncoderPass]":
        """Visible patches, through the encoder and through what it was at the start."""
        return frozenset({"sparse", "initial"})

    def metadata_used(self) -> tuple[str, ...]:
        """None: a token has its own target."""
        return ()

    def min_batch_size(self) -> int:
        """One: samples are independent."""
        return 1

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """That of the differences, beside the passes."""
        numbers = visible * model.width
        return TermCost(0, FLOPS_PER_PARAMETER * numbers, numbers)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """No head: the tokens themselves are compared."""
        from torch.nn import Identity

        return Identity()

    def count(self, crops: "Crops") -> "Scalar":
        """The visible tokens."""
        return crops.batch.spacing_mm.new_tensor(float(crops.batch.visible.numel()))

    def sum_and_count(
        self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs"
    ) -> "tuple[Tensor, Tensor]":
        """Sum of the squared differences, each the mean over a token's features."""
        moved = outputs.tokens.float() - outputs.initial_tokens.float()
        return moved.square().mean(dim=-1).sum(), self.count(crops)
