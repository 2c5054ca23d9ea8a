"""SSF: a scale and a shift after every layer and norm (Lian et al. 2022, arXiv:2210.08823).

Both merge into the weights before them exactly, so an adapted encoder costs nothing more.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ssl_pipeline.evaluation.adaptation.adaptation import ParameterEfficient

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.models.encoder import Encoder


class ScaleShift(ParameterEfficient):
    """A scale and a shift for every output feature of a layer or norm of the encoder."""

    TITLE: ClassVar[str] = "scale and shift"
    NEEDS_TRANSFORMER: ClassVar[bool] = True

    name: Literal["scale_shift"] = "scale_shift"

    def adapt(self, encoder: "Encoder") -> None:
        """Attach scales of one and shifts of zero to each layer and norm."""
        import torch
        from torch import nn

        for layer in _layers(encoder):
            layer.scale = nn.Parameter(torch.ones(len(layer.weight)))
            layer.shift = nn.Parameter(torch.zeros(len(layer.weight)))
            layer.folds = layer.register_forward_hook(_scale_and_shift)

    def merge(self, encoder: "Encoder") -> None:
        """Merge scales and shifts into weights and biases, and remove them."""
        import torch

        with torch.no_grad():
            for layer in _layers(encoder):
                layer.weight *= layer.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
                layer.bias *= layer.scale
                layer.bias += layer.shift
                layer.folds.remove()
                del layer.scale, layer.shift, layer.folds


def _layers(encoder: "nn.Module") -> list[Any]:
    from torch import nn

    return [m for m in encoder.modules() if isinstance(m, nn.Linear | nn.LayerNorm)]


def _scale_and_shift(layer: Any, _given: Any, out: Any) -> Any:
    return out * layer.scale + layer.shift
