"""Self-distillation of crops: what the teacher makes of one view, the encoder says of the other.

With local crops (`views.local_crops`) the encoder says it of each of them too.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.monitoring.diagnosis import AlarmRule
from ssl_pipeline.objectives.terms.distillation import (
    BOTTLENECK,
    DistillationTerm,
    distillation_metrics,
    distillation_rules,
)
from ssl_pipeline.objectives.terms.term import TermCost

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.term_inputs import (
        Crops,
        EncoderOutputs,
        EncoderPass,
        Rows,
        RowWeight,
        Tokens,
    )


class Dino(DistillationTerm):
    """DINO (Caron et al. 2021, arXiv:2104.14294) on the mean token of the body of each view."""

    METRICS: ClassVar[dict[str, str]] = distillation_metrics("dino", "crops")
    RULES: ClassVar[tuple[AlarmRule, ...]] = distillation_rules("dino")
    CONTRASTS_VIEWS: ClassVar[bool] = True

    name: Literal["dino"] = "dino"

    @property
    def passes(self) -> "frozenset[EncoderPass]":
        """Visible patches and local crops for the encoder, and whole crops for the teacher."""
        return super().passes | {"local"}

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the projection of one vector of a view; a few more of local crops are nothing."""
        return self.projection_cost(model, rows=1)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The projection to prototypes."""
        from ssl_pipeline.models.heads import PrototypeHead

        return PrototypeHead(encoder.dim, BOTTLENECK, self.prototypes)

    def projection(self, head: "nn.Module") -> "nn.Module":
        """The whole head."""
        return head

    def teacher_rows(self, crops: "Crops", tokens: "Tokens") -> "Rows":
        """The mean token of the other view of each sample, once more for each local crop."""
        import torch

        first, second = crops.pool_whole_body(tokens).chunk(2)
        others = torch.cat([second, first])
        return torch.cat([others, others.repeat_interleave(crops.batch.local.shape[1], dim=0)])

    def student_rows(self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs") -> "Rows":
        """The mean visible token of each view, and the mean token of each local crop."""
        import torch

        seen = crops.pool_body(outputs.tokens)
        if not crops.batch.local.shape[1]:
            return seen
        return torch.cat([seen, crops.pool_local_body(outputs.local_tokens)])

    def row_weight(self, crops: "Crops") -> "RowWeight":
        """One for each view, and for each local crop."""
        views, local = crops.batch.local.shape[:2]
        return crops.batch.spacing_mm.new_ones(views * (1 + local))
