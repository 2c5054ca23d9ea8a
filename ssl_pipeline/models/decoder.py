"""The light decoder of masked reconstruction: visible tokens and mask tokens to voxels."""

import ssl_pipeline.torchvision_cure  # noqa: F401  (before timm)

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_pipeline.models.positions import positions


class Decoder(nn.Module):
    """Rebuilds all patches of a crop from the tokens that the encoder saw."""

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
        places_mm: Float[Tensor, "batch tokens 3"],
    ) -> Float[Tensor, "batch tokens voxels"]:
        """Voxels of every patch, seen or not, in model input."""
        batch, count, _ = places_mm.shape
        seen = self.embed(tokens)
        full = self.mask_token.to(seen.dtype).expand(batch, count, self.width)
        full = full.scatter(1, visible[..., None].expand(-1, -1, self.width), seen)
        full = full + positions(places_mm, self.width).to(seen.dtype)
        for block in self.blocks:
            full = block(full)
        voxels: Tensor = self.to_voxels(self.norm(full))
        return voxels
