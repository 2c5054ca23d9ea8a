"""Visual prompt tuning: learned tokens beside those of the crop, new ones in every block.

VPT-deep of Jia et al. 2022 (arXiv:2203.12119). Prompts have no place in the crop, and leave a block
when it is done, so tokens come out as they went in.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from ssl_pipeline.evaluation.adaptation.adaptation import Light, blocks_of

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


class Prompts(Light):
    """Prompts before every block."""

    TITLE: ClassVar[str] = "visual prompts"
    TRANSFORMER: ClassVar[bool] = True

    name: Literal["prompts"] = "prompts"
    number: PositiveInt = Field(8, description="prompts of a block")

    def adapt(self, encoder: "Encoder") -> None:
        """Hang prompts on each block."""
        import torch
        from torch import nn

        for block in blocks_of(encoder):
            block.prompts = nn.Parameter(torch.randn(self.number, encoder.dim) * 0.02)
            block.register_forward_pre_hook(_put_before)
            block.register_forward_hook(_take_away)


def _put_before(block: Any, given: Any) -> Any:
    import torch

    tokens, *others = given
    prompts = block.prompts.to(tokens.dtype).expand(len(tokens), -1, -1)
    return torch.cat([prompts, tokens], dim=1), *others


def _take_away(block: Any, _given: Any, tokens: Any) -> Any:
    return tokens[:, len(block.prompts) :]
