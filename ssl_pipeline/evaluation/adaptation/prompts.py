"""Visual prompt tuning: learned tokens beside those of the crop, new ones in every block.

VPT-deep of Jia et al. 2022 (arXiv:2203.12119). Prompts have no position, and are removed after each
block, so the number of tokens does not change.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from ssl_pipeline.evaluation.adaptation.adaptation import ParameterEfficient, encoder_blocks

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


class Prompts(ParameterEfficient):
    """Learned tokens before every block."""

    TITLE: ClassVar[str] = "visual prompts"
    NEEDS_TRANSFORMER: ClassVar[bool] = True

    name: Literal["prompts"] = "prompts"
    prompts_per_block: PositiveInt = Field(8, description="learned tokens of each block")

    def adapt(self, encoder: "Encoder") -> None:
        """Attach prompts to each block."""
        import torch
        from torch import nn

        for block in encoder_blocks(encoder):
            block.prompts = nn.Parameter(torch.randn(self.prompts_per_block, encoder.dim) * 0.02)
            block.register_forward_pre_hook(_prepend_prompts)
            block.register_forward_hook(_remove_prompts)


def _prepend_prompts(block: Any, given: Any) -> Any:
    import torch

    tokens, *others = given
    prompts = block.prompts.to(tokens.dtype).expand(len(tokens), -1, -1)
    return torch.cat([prompts, tokens], dim=1), *others


def _remove_prompts(block: Any, _given: Any, tokens: Any) -> Any:
    return tokens[:, len(block.prompts) :]
