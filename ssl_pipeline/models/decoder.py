"""The light decoder of masked reconstruction: visible tokens and mask tokens to voxels.

It need not decode all that is hidden: a random part of it teaches as much for less.
"""

import ssl_pipeline.torchvision_cure  # noqa: F401  (before timm)

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_pipeline.models.positions import positions
from ssl_pipeline.views.tokens import gather


class Decoder(nn.Module):
    """Rebuilds patches of a crop from the tokens that the encoder saw."""

    def __init__(self, dim: int, voxels: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        heads = max(1, width // 32)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.to_voxels = nn.Linear(width, voxels)

    def forward(
        self,
        tokens: Float[Tensor, "batch kept dim"],
        visible: Int[Tensor, "batch kept"],
        wanted: Int[Tensor, "batch wanted"],
        places_mm: Float[Tensor, "batch tokens 3"],
    ) -> Float[Tensor, "batch wanted voxels"]:
        """Voxels, in model input, of the patches `wanted`, from the tokens of those `visible`.

        `places_mm` are the middles of all patches.
        """
        there = positions(gather(places_mm, torch.cat([visible, wanted], 1)), self.width)
        seen = self.embed(tokens)
        hidden = self.mask_token.to(seen.dtype).expand(*wanted.shape, self.width)
        full = torch.cat([seen, hidden], dim=1) + there.to(seen.dtype)
        for block in self.blocks:
            full = block(full)
        voxels: Tensor = self.to_voxels(self.norm(full[:, visible.shape[1] :]))
        return voxels
