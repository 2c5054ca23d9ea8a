"""LoRA: a low-rank update of each weight (Hu et al. 2022, arXiv:2106.09685).

Implemented by `peft`, an optional dependency, for linear layers and 3D convolutions.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation.adaptation import ParameterEfficient, encoder_blocks

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder


class LowRank(ParameterEfficient):
    """Base class of LoRA and DoRA."""

    USES_DORA: ClassVar[bool]
    REQUIRED_PACKAGE: ClassVar[str] = "peft"

    rank: PositiveInt = Field(8, description="rank of the update")
    alpha: float = Field(16.0, gt=0, description="the update is multiplied by alpha / rank")

    def adapt(self, encoder: "Encoder") -> None:
        """Add low-rank updates to the layers of the blocks; UserError where peft is missing."""
        peft = _peft(self.TITLE)
        layers = [
            f"{encoder.trunk}.{name}"
            for name, module in encoder_blocks(encoder).named_modules()
            if _is_adaptable(module)
        ]
        config = peft.LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules=layers, use_dora=self.USES_DORA
        )
        peft.inject_adapter_in_model(config, encoder)

    def merge(self, encoder: "Encoder") -> None:
        """Add the updates to the weights, and restore the plain layers."""
        kind = _peft(self.TITLE).tuners.tuners_utils.BaseTunerLayer
        adapted = [(n, m) for n, m in encoder.named_modules() if isinstance(m, kind)]
        for name, layer in adapted:
            layer.merge()
            above, _, own = name.rpartition(".")
            setattr(encoder.get_submodule(above), own, layer.get_base_layer())


class Lora(LowRank):
    """Low-rank adaptation."""

    TITLE: ClassVar[str] = "LoRA"
    USES_DORA: ClassVar[bool] = False

    name: Literal["lora"] = "lora"


def _is_adaptable(module: "nn.Module") -> bool:
    """Whether a module is a linear layer, or a convolution of more than one voxel.

    peft 0.21 fails to merge a kernel of 1 x 1 x 1, for it takes it for one of two axes.
    """
    from torch import nn

    if isinstance(module, nn.Conv3d):
        return module.kernel_size[:2] != (1, 1)
    return isinstance(module, nn.Linear)


def _peft(title: str) -> Any:
    import ssl_pipeline.torchvision_compat  # noqa: F401  (before peft, whose transformers ask for it)

    try:
        import peft
    except ImportError:
        raise UserError(
            f"{title} needs the package peft: `pip install 'ssl-pipeline[peft]'`."
        ) from None
    return peft
