"""Start from timm's 2D vision transformer: what natural images, or slices, have taught it.

Its colours are summed, as a grey image shows the same in each; its patch is inflated along z, each
slice with an equal share of the weight (Carreira and Zisserman 2017, arXiv:1705.07750). Positions
and the class token are left out: ours are sines of millimetres, and no token stands for the crop.
"""

import re
from typing import TYPE_CHECKING, Literal

from ssl_pipeline.init_from.start import Start

if TYPE_CHECKING:
    from ssl_pipeline.init_from.take_over import Found

KERNEL = re.compile(r"patch_embed\.proj\.weight")
SAME = re.compile(r"blocks\..+|norm\.(weight|bias)")
OTHERS = {"patch_embed.proj.bias": "embed.bias", "reg_token": "registers"}


class Timm(Start):
    """A state dict of timm's VisionTransformer (vit_small and vit_base fit our S and B)."""

    name: Literal["timm"] = "timm"

    def read(self) -> "Found":
        """Its tensors under our names; the kernel is (width, 1, y, x)."""
        from ssl_pipeline.init_from.take_over import FOREIGN, Found
        from ssl_pipeline.init_from.weights_file import network

        tensors, left = network(self.weights, KERNEL)
        kernel = tensors.pop("patch_embed.proj.weight")
        found = {}
        for name, tensor in tensors.items():
            ours = name if SAME.fullmatch(name) else OTHERS.get(name)
            if ours:
                found[ours] = tensor.flatten() if ours == "registers" else tensor
            else:
                left.append(name)
        usable = kernel.ndim == 4  # (width, colours, y, x)
        return Found(
            found, kernel.sum(1)[:, None] if usable else None, left=tuple(left), notes=FOREIGN
        )
