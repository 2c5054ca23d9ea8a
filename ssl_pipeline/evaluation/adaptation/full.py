"""Full fine-tuning: every weight of the encoder is trained."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_pipeline.evaluation.adaptation.adaptation import Adaptation

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


class Full(Adaptation):
    """Training of all weights."""

    TITLE: ClassVar[str] = "full fine-tuning"
    USES_WEIGHT_DECAY: ClassVar[bool] = True

    name: Literal["full"] = "full"
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of the learning rate from a block to the one below it (Clark et al. "
        "2020, arXiv:2003.10555); 1 trains all blocks equally",
    )

    def adapt(self, encoder: "Encoder") -> None:
        """Unfreeze everything."""
        encoder.requires_grad_(True)

    def block_lr_factor(self, layers_above: int) -> float:
        """The factor decays with the distance of a block from the head."""
        return self.lr_factor * self.layer_decay**layers_above
