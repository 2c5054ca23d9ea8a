"""Sizes of the 3D vision transformer (section `model` of a study); imports no torch."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ssl_pipeline.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.models.vit import ViTEncoder

SIZES = {"tiny": (128, 6, 4), "S": (384, 12, 6), "B": (768, 12, 12)}  # width, depth, heads


class ViT(Section):
    """A 3D vision transformer made of timm's blocks."""

    name: Literal["vit"] = "vit"
    preset: Literal["tiny", "S", "B"] = Field("tiny", description="width, depth and heads")
    patch_voxels: tuple[int, int, int] = Field(
        (8, 8, 8), description="size of a token (z, y, x), in voxels"
    )
    layer_scale: float | None = Field(
        None, gt=0, description="initial LayerScale; none is faster to learn in short runs"
    )

    def build(self) -> "ViTEncoder":
        """The encoder, its weights drawn from torch's global generator."""
        from ssl_pipeline.models.vit import ViTEncoder

        return ViTEncoder(self)
