"""Self-distillation of crops: what the teacher makes of one view, the encoder says of the other."""

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
    from ssl_pipeline.objectives.term_inputs import Crops, Rows, RowWeight, Tokens


class Dino(DistillationTerm):
    """DINO (Caron et al. 2021, arXiv:2104.14294) on the mean token of the body of each view."""

    METRICS: ClassVar[dict[str, str]] = distillation_metrics("dino", "crops")
    RULES: ClassVar[tuple[AlarmRule, ...]] = distillation_rules("dino")
    CONTRASTS_VIEWS: ClassVar[bool] = True

    name: Literal["dino"] = "dino"

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the projection of one vector of a view."""
        return self.projection_cost(model, rows=1)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The projection to prototypes."""
        from ssl_pipeline.models.heads import PrototypeHead

        return PrototypeHead(encoder.dim, BOTTLENECK, self.prototypes)

    def projection(self, head: "nn.Module") -> "nn.Module":
        """The whole head."""
        return head

    def teacher_rows(self, crops: "Crops", tokens: "Tokens") -> "Rows":
        """The mean token of the other view of each sample."""
        import torch

        first, second = crops.pool_whole_body(tokens).chunk(2)
        return torch.cat([second, first])

    def student_rows(self, head: "nn.Module", crops: "Crops", tokens: "Tokens") -> "Rows":
        """The mean visible token of each view."""
        return crops.pool_body(tokens)

    def row_weight(self, crops: "Crops") -> "RowWeight":
        """One for each view."""
        return crops.batch.spacing_mm.new_ones(len(crops.batch.visible))
