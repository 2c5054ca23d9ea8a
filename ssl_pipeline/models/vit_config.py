"""Sizes of the 3D vision transformer (section `model` of a study); imports no torch."""

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_pipeline.models.backbone import Backbone
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from ssl_pipeline.models.vit import ViTEncoder

PRESETS = {"tiny": (128, 6, 4), "S": (384, 12, 6), "B": (768, 12, 12)}  # width, depth, heads
ACTIVATIONS_PER_BLOCK = 16  # a block keeps so many numbers for each of a token's, for the way back


class ViT(Backbone):
    """A 3D vision transformer made of timm's blocks."""

    is_transformer: ClassVar[bool] = True

    name: Literal["vit"] = "vit"
    preset: Literal["tiny", "S", "B"] = Field("tiny", description="width, depth and heads")
    layer_scale: float | None = Field(
        None, gt=0, description="initial LayerScale; none is faster to learn in short runs"
    )
    qk_norm: bool = Field(
        False,
        description="norm queries and keys, which keeps attention from saturating in long runs of "
        "large models (Dehghani et al. 2023, arXiv:2302.05442)",
    )
    registers: int = Field(
        0, ge=0, description="learned tokens beside the patches, never in the output"
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of crops that skip a branch of the last block in pretraining; it grows"
        " with depth, from 0 in the first",
    )

    @property
    def width(self) -> int:
        """Dimension of a token."""
        return PRESETS[self.preset][0]

    @property
    def depth(self) -> int:
        """Blocks."""
        return PRESETS[self.preset][1]

    @property
    def head_width(self) -> int:
        """Dimension of a token in one head."""
        return self.width // PRESETS[self.preset][2]

    @property
    def parameter_count(self) -> int:
        """Trainable parameters."""
        embedding = (math.prod(self.patch_voxels) + 1) * self.width
        scales = 2 * self.width * self.depth if self.layer_scale else 0
        scales += 4 * self.head_width * self.depth if self.qk_norm else 0
        blocks = block_parameters(self.width, self.depth) + scales
        return embedding + blocks + (2 + self.registers) * self.width

    def forward_flops(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Two operations a parameter and token, and attention's two products of matrices."""
        length = visible_tokens + self.registers
        return 2 * length * self.parameter_count + 4 * length**2 * self.width * self.depth

    def activation_count(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Activations of the blocks; fused attention stores no attention matrix."""
        return (visible_tokens + self.registers) * ACTIVATIONS_PER_BLOCK * self.width * self.depth

    def build(self) -> "ViTEncoder":
        """The encoder, its weights drawn from torch's global generator."""
        from ssl_pipeline.models.vit import ViTEncoder

        return ViTEncoder(self)


def block_parameters(width: int, depth: int) -> int:
    """Parameters of so many transformer blocks: attention, two layers of four widths, two norms."""
    return depth * (12 * width**2 + 13 * width)
