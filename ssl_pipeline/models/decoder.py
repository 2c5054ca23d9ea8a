"""The lightweight decoder of hidden patches: visible tokens and mask tokens to voxels or tokens.

It need not decode all that is hidden: a random part of it teaches as much for less.
"""

from typing import Any

import ssl_pipeline.torchvision_compat  # noqa: F401  (before timm)

import torch
from jaxtyping import Float, Int
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from ssl_pipeline.models.position_encoding import position_encoding
from ssl_pipeline.views.patches import gather_tokens


class ReconstructionDecoder(nn.Module):
    """Reconstructs patches of a crop from the visible tokens."""

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
        tokens: Float[Tensor, "batch visible dim"],
        visible: Int[Tensor, "batch visible"],
        targets: Int[Tensor, "batch wanted"],
        centres_mm: Float[Tensor, "batch tokens 3"],
    ) -> Float[Tensor, "batch wanted voxels"]:
        """Voxels, in model input, or tokens of the `targets`, from the tokens of those `visible`.

        `centres_mm` are the middles of all patches.
        """
        there = position_encoding(
            gather_tokens(centres_mm, torch.cat([visible, targets], 1)), self.width
        )
        seen = self.embed(tokens)
        hidden = self.mask_token.to(seen.dtype).expand(*targets.shape, self.width)
        full = torch.cat([seen, hidden], dim=1) + there.to(seen.dtype)
        *before, last = self.blocks
        for block in before:
            full = block(full)
        voxels: Tensor = self.to_voxels(self.norm(_forward_targets(last, full, visible.shape[1])))
        return voxels


def _forward_targets(block: Any, tokens: Tensor, first: int) -> Tensor:
    """What a block of timm makes of the tokens from `first` on, which attend to all.

    The others are keys and values alone, which spares the decoder 6 to 15% of its time.
    """
    attention, normed = block.attn, block.norm1(tokens)
    sizes = [attention.attn_dim, 2 * attention.attn_dim]
    of_query, of_others = zip(
        attention.qkv.weight.split(sizes), attention.qkv.bias.split(sizes), strict=True
    )
    query = linear(normed[:, first:], *of_query).unflatten(-1, (attention.num_heads, -1))
    key, value = linear(normed, *of_others).unflatten(-1, (2, attention.num_heads, -1)).unbind(2)
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    if attention.fused_attn:
        seen = scaled_dot_product_attention(query, key, value)
    else:
        seen = (query * attention.scale @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    tokens = tokens[:, first:] + attention.proj(seen.transpose(1, 2).flatten(2))
    made: Tensor = tokens + block.mlp(block.norm2(tokens))
    return made
