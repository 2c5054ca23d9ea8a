"""Self-distillation of hidden patches: the encoder predicts what the teacher, who sees them, says.

iBOT puts mask tokens into its encoder; here a small decoder has them, as of masked reconstruction,
so that the encoder's sparse pass serves this term too (after Darcet et al. 2025, CAPI,
arXiv:2502.08769).
"""

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.monitoring.diagnosis import AlarmRule
from ssl_pipeline.objectives.terms.distillation import (
    BOTTLENECK,
    DistillationTerm,
    distillation_metrics,
    distillation_rules,
)
from ssl_pipeline.objectives.terms.term import TermCost, decoder_cost

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.models.heads import PatchPredictor
    from ssl_pipeline.objectives.term_inputs import Crops, EncoderOutputs, Rows, RowWeight, Tokens


class Ibot(DistillationTerm):
    """iBOT's patches (Zhou et al. 2022, arXiv:2111.07832): hidden ones inside the body."""

    METRICS: ClassVar[dict[str, str]] = distillation_metrics("ibot", "hidden patches")
    RULES: ClassVar[tuple[AlarmRule, ...]] = distillation_rules("ibot")

    name: Literal["ibot"] = "ibot"
    decoder_depth: int = Field(
        2, ge=1, description="blocks of the decoder, half as wide as a token"
    )
    decode_ratio: float = Field(
        1.0, gt=0, le=1, description="fraction of the hidden patches that is predicted"
    )

    def cost(self, model: ModelConfig, visible: int, hidden: int) -> TermCost:
        """Cost of the decoder, and of the projection of the hidden patches."""
        rows = max(1, round(self.decode_ratio * hidden))
        decoder = decoder_cost(
            model.width, model.width, model.width // 2, self.decoder_depth, visible + rows
        )
        return decoder + self.projection_cost(model, rows)

    def build_head(self, encoder: "Encoder") -> "nn.Module":
        """The decoder, and the projection of its tokens to prototypes."""
        from ssl_pipeline.models.decoder import ReconstructionDecoder
        from ssl_pipeline.models.heads import PatchPredictor, PrototypeHead

        dim = encoder.dim
        decoder = ReconstructionDecoder(dim, dim, width=dim // 2, depth=self.decoder_depth)
        return PatchPredictor(decoder, PrototypeHead(dim, BOTTLENECK, self.prototypes))

    def projection(self, head: "nn.Module") -> "nn.Module":
        """From tokens to prototypes."""
        return cast("PatchPredictor", head).projection

    def teacher_rows(self, crops: "Crops", tokens: "Tokens") -> "Rows":
        """The teacher's tokens of hidden patches."""
        from ssl_pipeline.views.patches import gather_tokens

        return gather_tokens(tokens, self._chosen(crops)).flatten(0, 1)

    def student_rows(self, head: "nn.Module", crops: "Crops", outputs: "EncoderOutputs") -> "Rows":
        """The tokens of hidden patches as the decoder predicts them from the visible ones."""
        decoder, visible = cast("PatchPredictor", head).decoder, crops.batch.visible
        chosen = self._chosen(crops)
        predicted: Tensor = decoder(outputs.tokens, visible, chosen, crops.centres_mm())
        return predicted.flatten(0, 1)

    def row_weight(self, crops: "Crops") -> "RowWeight":
        """One for each hidden patch that lies inside the body."""
        return crops.is_body(self._chosen(crops)).float().flatten()

    def _chosen(self, crops: "Crops") -> "Tensor":
        """The hidden patches that are predicted: the first of them, which are in random order."""
        hidden = crops.batch.hidden
        return hidden[:, : max(1, round(self.decode_ratio * hidden.shape[1]))]
