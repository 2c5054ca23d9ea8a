"""The 3D vision transformer: timm's blocks over patches, with a sparse and a dense forward pass.

Pretraining sees a quarter of the tokens, which are gathered before the embedding, so nothing is
computed for the others (3.4 times faster a step than masking inside a dense encoder). Evaluation
uses the dense way. Registers, where asked for, are learned tokens without a
place that give attention somewhere to keep what is global (Darcet et al. 2024, arXiv:2309.16588);
they never leave the encoder.
"""

from typing import Any

import ssl_pipeline.torchvision_compat  # noqa: F401  (before timm)

import torch
from jaxtyping import Float, Int
from timm.layers import GELUTanh
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_pipeline.models.drop_path import BRANCHES_PER_BLOCK
from ssl_pipeline.models.encoder import CropFeatures, Encoder, FeatureInfo
from ssl_pipeline.models.position_encoding import position_encoding
from ssl_pipeline.models.vit_config import ViT
from ssl_pipeline.types import triple
from ssl_pipeline.views.patches import gather_tokens, patch_centres_mm, patch_grid, patchify

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "gelu_tanh": GELUTanh}


class ViTEncoder(Encoder):
    """Patches through timm's pre-norm blocks, with positions in mm; see `Encoder`."""

    def __init__(self, config: ViT) -> None:
        super().__init__()
        size = config.sizes
        self.dim, depth = size.width, size.depth
        self.patch, self.drop_path = config.patch_voxels, config.drop_path
        self.activation = config.activation
        self.branches = BRANCHES_PER_BLOCK * depth if config.drop_path else 0
        voxels = self.patch[0] * self.patch[1] * self.patch[2]
        self.embed = nn.Linear(voxels, self.dim)
        self.blocks = nn.ModuleList(
            Block(
                self.dim,
                size.heads,
                mlp_ratio=size.mlp_ratio,
                qkv_bias=True,
                qk_norm=config.qk_norm,
                init_values=config.layer_scale,
                act_layer=ACTIVATIONS[config.activation],
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(self.dim)
        self.pyramid_channels = config.pyramid_channels
        self.feature_info = [FeatureInfo(self.dim, self.patch)] * depth
        self.apply(_initialise)
        # Flat, for weights of more than one axis decay, and tokens shall not.
        flat = torch.randn(config.registers * self.dim) * 0.02
        self.registers = nn.Parameter(flat) if config.registers else None

    def forward_features(
        self,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
        visible: Int[Tensor, "batch visible"] | None = None,
        branch_factors: Float[Tensor, "batch branches"] | None = None,
    ) -> CropFeatures:
        """Tokens, those `visible` computed from them alone (He et al. 2022, arXiv:2111.06377)."""
        patches, places_mm = self._patches(crops, spacing_mm)
        if visible is not None:
            patches, places_mm = gather_tokens(patches, visible), gather_tokens(places_mm, visible)
        return CropFeatures(self._forward_blocks(patches, places_mm, branch_factors), [])

    def forward_intermediates(
        self, crops: Float[Tensor, "batch 1 z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """Tokens after each block, normed as the last ones are, where they lie."""
        grid = patch_grid(triple(crops.shape[2:]), self.patch)
        tokens, found = self._embed_patches(*self._patches(crops, spacing_mm)), []
        for block in self.blocks:
            tokens = block(tokens)
            normed = self.norm(tokens[:, self._register_count :])
            found.append(normed.transpose(1, 2).reshape(len(crops), self.dim, *grid))
        return found

    def attention(
        self, crops: Float[Tensor, "batch 1 z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch heads tokens tokens"]:
        """How much each token (row) attends to each other in the last block; rows sum to 1.

        For pictures, in a dense pass. Registers are left out: a row is how the token's attention to
        patches is shared among them.
        """
        tokens = self._embed_patches(*self._patches(crops, spacing_mm))
        *before, last = self.blocks
        for block in before:
            tokens = block(tokens)
        return _attention_weights(last, tokens, self._register_count)

    @property
    def _register_count(self) -> int:
        """Registers, which go before the patches."""
        return 0 if self.registers is None else len(self.registers) // self.dim

    def _patches(self, crops: Tensor, spacing_mm: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels of all patches, and their positions in mm."""
        size = triple(crops.shape[2:])
        return patchify(crops, self.patch), patch_centres_mm(size, self.patch, spacing_mm)

    def _embed_patches(self, patches: Tensor, centres_mm: Tensor) -> Tensor:
        tokens: Tensor = self.embed(patches) + position_encoding(centres_mm, self.dim).to(
            patches.dtype
        )
        if self.registers is None:
            return tokens
        registers = self.registers.to(tokens.dtype).reshape(1, -1, self.dim)
        return torch.cat([registers.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def _forward_blocks(
        self, patches: Tensor, centres_mm: Tensor, branch_factors: Tensor | None = None
    ) -> Tensor:
        tokens = self._embed_patches(patches, centres_mm)
        for index, block in enumerate(self.blocks):
            if branch_factors is None:
                tokens = block(tokens)
            else:
                factors = branch_factors[
                    :, BRANCHES_PER_BLOCK * index : BRANCHES_PER_BLOCK * (index + 1)
                ]
                tokens = _scaled_block(block, tokens, factors.to(tokens.dtype))
        normed: Tensor = self.norm(tokens[:, self._register_count :])
        return normed


def _scaled_block(block: Any, tokens: Tensor, factors: Float[Tensor, "batch 2"]) -> Tensor:
    """A block of timm, its two branches multiplied by a factor for each crop."""
    attended, fed = factors[..., None, None].unbind(dim=1)
    tokens = tokens + attended * block.ls1(block.attn(block.norm1(tokens)))
    scaled: Tensor = tokens + fed * block.ls2(block.mlp(block.norm2(tokens)))
    return scaled


def _attention_weights(block: Any, tokens: Tensor, first: int) -> Tensor:
    """Attention of a block of timm among its tokens from `first` on, by heads."""
    heads = block.attn.qkv(block.norm1(tokens)[:, first:]).unflatten(
        -1, (3, block.attn.num_heads, -1)
    )
    query, key, _ = heads.permute(2, 0, 3, 1, 4)
    query, key = block.attn.q_norm(query), block.attn.k_norm(key)
    shares: Tensor = (query @ key.transpose(-2, -1) * block.attn.scale).softmax(dim=-1)
    return shares


def _initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as MAE has them."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
