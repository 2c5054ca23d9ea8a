"""Segmentation model: an encoder, a decoder of voxels, and a linear head at every resolution.

The bias of background starts high, for most voxels are background.
"""

from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.models.voxel_decoder import VoxelDecoder

BACKGROUND_LOGIT = 3.0  # initial bias of background; that of each class is 0


class SegmentationModel(nn.Module):
    """An encoder with a decoder of voxel classes, background first."""

    def __init__(self, encoder: Encoder, decoder: VoxelDecoder, n_classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.seg_layers = nn.ModuleList(_head(each, n_classes + 1) for each in decoder.channels)

    def forward(
        self, images: Float[Tensor, "batch z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch classes z y x"]:
        """Logits of background and classes for every voxel."""
        finest, *_ = self.decoder(self.encoder, images[:, None], spacing_mm)
        logits: Tensor = self.seg_layers[0](finest)
        return logits

    def forward_resolutions(
        self, images: Float[Tensor, "batch z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> list[Float[Tensor, "batch classes _ _ _"]]:
        """Logits at every resolution of the decoder, the finest first."""
        maps = self.decoder(self.encoder, images[:, None], spacing_mm)
        return [head(each) for head, each in zip(self.seg_layers, maps, strict=True)]


def _head(channels: int, outputs: int) -> nn.Conv3d:
    head = nn.Conv3d(channels, outputs, 1)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    nn.init.constant_(head.bias[:1], BACKGROUND_LOGIT)  # type: ignore[index]
    return head
