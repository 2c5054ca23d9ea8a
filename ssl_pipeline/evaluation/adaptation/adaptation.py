"""What a way of adapting an encoder to a task is: what of it is trained, and what is added to it.

Everything is frozen first; a method then sets free or adds what it trains. What it adds hangs on
the encoder's own modules, as parameters and hooks, so that an adapted encoder is called, copied and
moved as any other. The head is trained with every method.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder


class Adaptation(Section, ABC):
    """The part that all methods share."""

    TITLE: ClassVar[str]
    USES_WEIGHT_DECAY: ClassVar[bool] = (
        False  # whether AdamW's weight decay holds for what it trains
    )
    NEEDS_TRANSFORMER: ClassVar[bool] = False  # whether it needs blocks of attention
    SUPPORTS_SEGMENTATION: ClassVar[bool] = True  # whether it serves segmentation

    lr_factor: float = Field(
        1.0, gt=0, description="factor of finetune.lr for what is trained inside the encoder"
    )

    def apply(self, encoder: "Encoder") -> None:
        """Freeze an encoder but for what this method trains, adding what that takes.

        But for prompts, what it computes does not change by that. Weights are drawn from torch's
        global generator. Raises UserError for an encoder that the method cannot adapt.
        """
        if self.NEEDS_TRANSFORMER and not hasattr(encoder_blocks(encoder)[0], "mlp"):
            raise UserError(
                f"finetune.methods: {self.TITLE} works on the blocks of a transformer, and this "
                "encoder has none: leave it out, or choose a model with them."
            )
        encoder.requires_grad_(False)
        self.adapt(encoder)

    @abstractmethod
    def adapt(self, encoder: "Encoder") -> None:
        """Add to a frozen encoder, and set free, what is trained."""

    def merge(self, encoder: "Encoder") -> None:
        """Fold what was added into the encoder's own weights where that is exact, else nothing."""

    def pool(self, dim: int) -> "nn.Module":
        """What makes one vector of tokens of width `dim`, for classes: their mean."""
        from ssl_pipeline.evaluation.data.pooling import MeanPool

        return MeanPool()

    def block_lr_factor(self, layers_above: int) -> float:
        """Factor of finetune.lr for a block with so many floors above it; 0 is the last norm."""
        return self.lr_factor


class ParameterEfficient(Adaptation):
    """A method that trains so few weights that they may go much faster.

    The factor was 10 in the papers that introduce them.
    """

    lr_factor: float = Field(
        10.0, gt=0, description="factor of finetune.lr for what is trained inside the encoder"
    )


def encoder_blocks(encoder: "Encoder") -> "nn.ModuleList":
    """What a crop goes through, one after the other."""
    from torch import nn

    blocks = encoder.get_submodule(encoder.trunk)
    assert isinstance(blocks, nn.ModuleList)
    return blocks
