"""LoRA: a low-rank update of each weight (Hu et al. 2022, arXiv:2106.09685)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from ssl_pipeline.evaluation.adaptation.adaptation import ParameterEfficient

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder


class LowRank(ParameterEfficient):
    """Base class of LoRA and DoRA."""

    USES_DORA: ClassVar[bool]
    REQUIRED_PACKAGE: ClassVar[str] = "peft"

    rank: PositiveInt = Field(8, description="rank of the update")
    alpha: float = Field(16.0, gt=0, description="the update is multiplied by alpha / rank")

    def adapt(self, encoder: "Encoder") -> None:
        """Add low-rank updates to the layers of the blocks; UserError where peft is missing."""
        from ssl_pipeline.models.low_rank import add_updates

        add_updates(encoder, self.rank, self.alpha, use_dora=self.USES_DORA)

    def merge(self, encoder: "Encoder") -> None:
        """Add the updates to the weights, and restore the plain layers."""
        from ssl_pipeline.models.low_rank import merge_updates

        merge_updates(encoder)


class Lora(LowRank):
    """Low-rank adaptation."""

    TITLE: ClassVar[str] = "LoRA"
    USES_DORA: ClassVar[bool] = False

    name: Literal["lora"] = "lora"
