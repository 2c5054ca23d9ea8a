"""Sizes of the 3D vision transformer (section `model` of a study); imports no torch."""

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from ssl_pipeline.config.section import Section
from ssl_pipeline.models.backbone import Backbone
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from ssl_pipeline.models.vit import ViTEncoder

ACTIVATIONS_PER_BLOCK = 16  # a block keeps so many numbers for each of a token's, for the way back


class ViTSize(Section):
    """Width, depth and heads of a vision transformer."""

    width: int = Field(ge=6, description="dimension of a token")
    depth: PositiveInt = Field(description="blocks")
    heads: PositiveInt = Field(description="heads of attention, of which width is a multiple")
    mlp_width: PositiveInt | None = Field(
        None, description="width inside the MLP of a block; four times that of a token if empty"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "ViTSize":
        if self.width % self.heads:
            raise ValueError(
                f"heads is {self.heads}, and width {self.width} is no multiple of it: change one"
            )
        return self

    @property
    def inner_width(self) -> int:
        """Width inside the MLP of a block."""
        return self.mlp_width or 4 * self.width

    @property
    def mlp_ratio(self) -> float:
        """The ratio that timm's blocks take, which round the product with the width down."""
        return (self.mlp_width + 0.5) / self.width if self.mlp_width else 4.0


PRESETS = {
    "tiny": ViTSize(width=128, depth=6, heads=4),
    "S": ViTSize(width=384, depth=12, heads=6),
    "B": ViTSize(width=768, depth=12, heads=12),
}


class ViT(Backbone):
    """A 3D vision transformer made of timm's blocks."""

    is_transformer: ClassVar[bool] = True

    name: Literal["vit"] = "vit"
    preset: Literal["tiny", "S", "B"] = Field("tiny", description="width, depth and heads")
    size: ViTSize | None = Field(
        None,
        description="a size of your own in place of the preset's, such as that of the weights in "
        "`init_from`",
    )
    activation: Literal["gelu", "gelu_tanh"] = Field(
        "gelu", description="of the MLPs; gelu_tanh is the approximation that SigLIP's have"
    )
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
    def sizes(self) -> ViTSize:
        """Its own size, or the preset's."""
        return self.size or PRESETS[self.preset]

    @property
    def width(self) -> int:
        """Dimension of a token."""
        return self.sizes.width

    @property
    def depth(self) -> int:
        """Blocks."""
        return self.sizes.depth

    @property
    def head_width(self) -> int:
        """Dimension of a token in one head."""
        return self.width // self.sizes.heads

    @property
    def parameter_count(self) -> int:
        """Trainable parameters."""
        embedding = (math.prod(self.patch_voxels) + 1) * self.width
        scales = 2 * self.width * self.depth if self.layer_scale else 0
        scales += 4 * self.head_width * self.depth if self.qk_norm else 0
        blocks = block_parameters(self.width, self.depth, self.sizes.inner_width) + scales
        return embedding + blocks + (2 + self.registers) * self.width

    def forward_flops(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Two operations a parameter and token, and attention's two products of matrices."""
        length = visible_tokens + self.registers
        return 2 * length * self.parameter_count + 4 * length**2 * self.width * self.depth

    def activation_count(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Activations of the blocks; fused attention stores no attention matrix."""
        # Half of a block's are inside its MLP, before and after the activation.
        kept = ACTIVATIONS_PER_BLOCK // 2 * self.width + 2 * self.sizes.inner_width
        return (visible_tokens + self.registers) * kept * self.depth

    def build(self) -> "ViTEncoder":
        """The encoder, its weights drawn from torch's global generator."""
        from ssl_pipeline.models.vit import ViTEncoder

        return ViTEncoder(self)


def block_parameters(width: int, depth: int, inner_width: int) -> int:
    """Parameters of so many transformer blocks: attention, an MLP of two layers, two norms."""
    return depth * (4 * width**2 + 2 * width * inner_width + inner_width + 9 * width)
