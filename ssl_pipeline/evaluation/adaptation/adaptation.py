"""Base class of the methods that adapt an encoder to a task.

Everything is frozen first; a method then unfreezes or adds what it trains. Added parameters and
hooks are attached to the encoder's own modules, so that an adapted encoder is called, copied and
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
    """Base class of all adaptation methods."""

    TITLE: ClassVar[str]
    USES_WEIGHT_DECAY: ClassVar[bool] = False  # of AdamW, for what it trains in the encoder
    NEEDS_TRANSFORMER: ClassVar[bool] = False  # whether it needs attention blocks
    SUPPORTS_SEGMENTATION: ClassVar[bool] = True  # whether it can be used for segmentation
    REQUIRED_PACKAGE: ClassVar[str] = ""  # an optional one, without which it cannot be used

    lr_factor: float = Field(
        1.0,
        gt=0,
        description="factor of finetune.learning_rate for what is trained inside the encoder",
    )

    def apply(self, encoder: "Encoder") -> None:
        """Freeze an encoder but for what this method trains, and add its parameters.

        The output does not change by that, except with prompts. Weights are drawn from torch's
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
        """Unfreeze and add what is trained, in a frozen encoder."""

    def merge(self, encoder: "Encoder") -> None:
        """Merge added parameters into the encoder's own weights where that is exact."""

    def pool(self, dim: int) -> "nn.Module":
        """The module that pools tokens of width `dim` to one vector: their mean."""
        from ssl_pipeline.evaluation.data.pooling import MeanPool

        return MeanPool()

    def block_lr_factor(self, layers_above: int) -> float:
        """Factor of finetune.learning_rate for a block with so many layers above it."""
        return self.lr_factor


class ParameterEfficient(Adaptation):
    """Base class of methods that train few weights, with a higher learning rate.

    The factor was 10 in the papers that introduce them.
    """

    lr_factor: float = Field(
        10.0,
        gt=0,
        description="factor of finetune.learning_rate for what is trained inside the encoder",
    )


def encoder_blocks(encoder: "Encoder") -> "nn.ModuleList":
    """The blocks of the encoder's trunk, in order."""
    from torch import nn

    blocks = encoder.get_submodule(encoder.trunk)
    assert isinstance(blocks, nn.ModuleList)
    return blocks
