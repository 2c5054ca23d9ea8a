"""The interface of decoders from an encoder's features to maps at the resolution of voxels."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.models.encoder import Encoder


class VoxelDecoder(nn.Module, ABC):
    """Base class: crops through an encoder to maps of one or more resolutions; holds no encoder.

    Attribute: `channels`, those of each map.
    """

    channels: list[int]

    @abstractmethod
    def forward(
        self,
        encoder: Encoder,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """Maps of the crops, that of full resolution first, each coarser than the one before.

        Sides of crops are multiples of the encoder's patch.
        """
