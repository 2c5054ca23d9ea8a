"""Bottleneck adapters: a narrow layer after each block's MLP.

Houlsby et al. 2019 (arXiv:1902.00751), one a block as Pfeiffer et al. 2021 (arXiv:2005.00247) have
it. Its last layer is initialised to zero, so that the encoder starts as it was pretrained.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from ssl_pipeline.evaluation.adaptation.adaptation import ParameterEfficient, encoder_blocks

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


class Adapters(ParameterEfficient):
    """An adapter after the MLP of every block."""

    TITLE: ClassVar[str] = "adapters"
    NEEDS_TRANSFORMER: ClassVar[bool] = True

    name: Literal["adapters"] = "adapters"
    width: PositiveInt = Field(16, description="width of the bottleneck")

    def adapt(self, encoder: "Encoder") -> None:
        """Attach an adapter to each MLP."""
        from torch import nn

        for block in encoder_blocks(encoder):
            mlp = block.get_submodule("mlp")
            last = nn.Linear(self.width, encoder.dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            mlp.adapter = nn.Sequential(nn.Linear(encoder.dim, self.width), nn.GELU(), last)
            mlp.register_forward_hook(_add_adapter)


def _add_adapter(mlp: Any, _given: Any, tokens: Any) -> Any:
    return tokens + mlp.adapter(tokens)
