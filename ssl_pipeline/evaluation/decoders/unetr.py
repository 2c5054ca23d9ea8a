"""A decoder like UNETR's, with skip connections from the encoder at every resolution."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.config.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.evaluation.decoders.upsampling import VoxelDecoder
    from ssl_pipeline.models.encoder import Encoder


class UnetrDecoder(Section):
    """Skips from blocks at even depths, as in Hatamizadeh et al. 2022 (arXiv:2103.10504).

    Feature maps of an encoder with several resolutions join at their own, as in a U-Net.
    """

    FLOPS: ClassVar[int] = 25_000  # of a voxel, forward; convolutions of few channels are slow

    name: Literal["unetr"] = "unetr"

    def build(self, encoder: "Encoder") -> "VoxelDecoder":
        """The module from crops to a map at full resolution."""
        from ssl_pipeline.evaluation.decoders.upsampling import SkipUpsampler

        return SkipUpsampler(encoder)
