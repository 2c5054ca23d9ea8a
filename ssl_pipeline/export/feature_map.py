"""The encoder as a plain module from volumes to feature maps, for decoders of other libraries.

Decoders of the kinds of UNETR, nnU-Net and Primus, and MONAI's sliding windows, call a module with
images alone and expect a map on the grid of the patches. Our encoder takes the spacing as an
input, so it is fixed here when the module is made. Nothing here needs MONAI.

Axes are (z, y, x), as in stored volumes; MONAI's loaders give (x, y, z), so transpose first.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.errors import UserError
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.models.vit import ViTEncoder
from ssl_pipeline.types import Spacing, triple
from ssl_pipeline.views.patches import patch_grid

UNETR_BLOCKS = 12  # whose outputs MONAI's UNETR chooses its skips from
UNETR_PATCH = (16, 16, 16)


class FeatureMap(nn.Module):
    """An encoder for images of one spacing (z, y, x), in mm; its weights are the encoder's own."""

    spacing_mm: Tensor

    def __init__(self, encoder: Encoder, spacing_mm: Spacing) -> None:
        super().__init__()
        self.encoder = encoder
        spacing = torch.tensor([spacing_mm], dtype=torch.float32)
        self.register_buffer("spacing_mm", spacing, persistent=False)

    def forward(
        self, images: Float[Tensor, "batch 1 z y x"]
    ) -> Float[Tensor, "batch dim grid_z grid_y grid_x"]:
        """Tokens where they lie. `images` are model input, sides multiples of the patch's."""
        tokens = self.tokens(images)
        grid = patch_grid(triple(images.shape[2:]), self.encoder.patch)
        return tokens.transpose(1, 2).reshape(len(images), -1, *grid)

    def tokens(self, images: Float[Tensor, "batch 1 z y x"]) -> Float[Tensor, "batch tokens dim"]:
        """The encoder's tokens, row by row over (z, y, x).

        Raises UserError where a side of the images is no multiple of the patch's.
        """
        sides = zip(images.shape[2:], self.encoder.patch, strict=True)
        if any(side % patch for side, patch in sides):
            raise UserError(
                f"Images of {tuple(images.shape[2:])} voxels cannot be cut into patches of "
                f"{self.encoder.patch}: pad them to multiples, as MONAI's DivisiblePad does."
            )
        tokens: Tensor = self.encoder(images, self.spacing_mm.expand(len(images), 3))
        return tokens


class UnetrTokens(nn.Module):
    """The `vit` of MONAI's UNETR: tokens, and the outputs of twelve blocks.

    `net = UNETR(1, classes, crop, hidden_size=encoder.dim, num_heads=...)`, then
    `net.vit = UnetrTokens(encoder, spacing_mm)`. Of an encoder with fewer blocks some are
    given twice, so that the skips stay evenly deep. Raises UserError where the encoder is no vision
    transformer, or has patches of another size than UNETR's (16, 16, 16) voxels.
    Source: Hatamizadeh et al. 2022 (arXiv:2103.10504), sec. 3.1.
    """

    def __init__(self, encoder: Encoder, spacing_mm: Spacing) -> None:
        super().__init__()
        if not isinstance(encoder, ViTEncoder) or encoder.patch != UNETR_PATCH:
            raise UserError(
                f"UNETR needs a vision transformer with patches of {UNETR_PATCH} voxels, and this "
                f"encoder is a {type(encoder).__name__} with {encoder.patch}: pretrain one with "
                "model.patch_voxels: [16, 16, 16], or use FeatureMap with another decoder."
            )
        self.feature_map = FeatureMap(encoder, spacing_mm)

    def forward(
        self, images: Float[Tensor, "batch 1 z y x"]
    ) -> tuple[Float[Tensor, "batch tokens dim"], list[Float[Tensor, "batch tokens dim"]]]:
        """The last tokens, normed, and those after each of twelve blocks."""
        given: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _block, _seen, out: given.append(out))
            for block in self.feature_map.encoder.get_submodule("blocks").children()
        ]
        try:
            tokens = self.feature_map.tokens(images)
        finally:
            for hook in hooks:
                hook.remove()
        of_patches = [out[:, -tokens.shape[1] :] for out in given]
        return tokens, [of_patches[i * len(given) // UNETR_BLOCKS] for i in range(UNETR_BLOCKS)]
