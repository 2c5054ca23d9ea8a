"""Low-rank updates of an encoder's layers, in place of training the weights themselves.

LoRA (Hu et al. 2022, arXiv:2106.09685) and DoRA (Liu et al. 2024, arXiv:2402.09353) as `peft`
implements them, an optional package, for linear layers and 3D convolutions.
"""

from typing import Any

from torch import nn

from ssl_pipeline.errors import UserError
from ssl_pipeline.models.encoder import Encoder


def add_updates(encoder: Encoder, rank: int, alpha: float, *, use_dora: bool = False) -> None:
    """Freeze an encoder, and add updates of its blocks' layers, which alone are trained.

    The output does not change by that. Weights are drawn from torch's global generator. Raises
    UserError where peft is missing.
    """
    peft = _peft()
    encoder.requires_grad_(False)
    layers = [
        f"{encoder.trunk}.{name}"
        for name, module in encoder.get_submodule(encoder.trunk).named_modules()
        if _is_adaptable(module)
    ]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, use_dora=use_dora)
    peft.inject_adapter_in_model(config, encoder)


def merge_updates(encoder: Encoder) -> None:
    """Add the updates to the weights, and restore the plain layers."""
    kind = _peft().tuners.tuners_utils.BaseTunerLayer
    adapted = [(n, m) for n, m in encoder.named_modules() if isinstance(m, kind)]
    for name, layer in adapted:
        layer.merge()
        above, _, own = name.rpartition(".")
        setattr(encoder.get_submodule(above), own, layer.get_base_layer())


def _is_adaptable(module: nn.Module) -> bool:
    """Whether a module is a linear layer, or a convolution of more than one voxel.

    peft 0.21 fails to merge a kernel of 1 x 1 x 1, for it takes it for one of two axes.
    """
    if isinstance(module, nn.Conv3d):
        return module.kernel_size[:2] != (1, 1)
    return isinstance(module, nn.Linear)


def _peft() -> Any:
    import ssl_pipeline.torchvision_compat  # noqa: F401  (before peft, whose transformers ask for it)

    try:
        import peft
    except ImportError:
        raise UserError(
            "Low-rank updates (LoRA, DoRA) need the package peft: `pip install "
            "'ssl-pipeline[peft]'`."
        ) from None
    return peft
