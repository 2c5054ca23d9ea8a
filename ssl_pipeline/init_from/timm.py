"""Initial weights from timm's 2D vision transformer, trained on natural images or slices.

Its colours are summed, as a grey image shows the same in each; its patch is inflated along z, each
slice with an equal share of the weight (Carreira and Zisserman 2017, arXiv:1705.07750). Positions
and the class token are left out: ours are sines of millimetres, and no token stands for the crop.
"""

import re
from typing import TYPE_CHECKING, Literal

from ssl_pipeline.init_from.weights_source import WeightsSource

if TYPE_CHECKING:
    from ssl_pipeline.init_from.transfer import PretrainedWeights

KERNEL_NAME = re.compile(r"patch_embed\.proj\.weight")
UNCHANGED_NAMES = re.compile(r"blocks\..+|norm\.(weight|bias)")
NAME_MAP = {"patch_embed.proj.bias": "embed.bias", "reg_token": "registers"}


class TimmWeights(WeightsSource):
    """A state dict of timm's VisionTransformer (vit_small and vit_base fit our S and B)."""

    name: Literal["timm"] = "timm"

    def read(self) -> "PretrainedWeights":
        """Its tensors under our names; the kernel is (width, 1, y, x)."""
        from ssl_pipeline.init_from.transfer import THIRD_PARTY_NOTES, PretrainedWeights
        from ssl_pipeline.init_from.weights_file import read_network

        tensors, left = read_network(self.weights_path, KERNEL_NAME)
        kernel = tensors.pop("patch_embed.proj.weight")
        found = {}
        for name, tensor in tensors.items():
            ours = name if UNCHANGED_NAMES.fullmatch(name) else NAME_MAP.get(name)
            if ours:
                found[ours] = tensor.flatten() if ours == "registers" else tensor
            else:
                left.append(name)
        usable = kernel.ndim == 4  # (width, colours, y, x)
        return PretrainedWeights(
            found,
            kernel.sum(1)[:, None] if usable else None,
            unused_names=tuple(left),
            notes=THIRD_PARTY_NOTES,
        )
