"""Training of the last block; all blocks below it stay as they were pretrained."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.evaluation.adaptation.adaptation import Adaptation, encoder_blocks

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


class LastBlock(Adaptation):
    """Training of the last block and the norm after it."""

    TITLE: ClassVar[str] = "last block"
    USES_WEIGHT_DECAY: ClassVar[bool] = True

    name: Literal["last_block"] = "last_block"

    def adapt(self, encoder: "Encoder") -> None:
        """Unfreeze the last block and the last norm."""
        encoder_blocks(encoder)[-1].requires_grad_(True)
        encoder.get_submodule("norm").requires_grad_(True)
