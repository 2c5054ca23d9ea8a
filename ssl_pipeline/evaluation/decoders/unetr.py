"""A decoder like UNETR's: what blocks on the way have seen joins at every resolution."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.config.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.evaluation.decoders.upsampling import VoxelDecoder
    from ssl_pipeline.models.encoder import Encoder


class UnetrDecoder(Section):
    """Skips from the trunk, evenly deep, as of Hatamizadeh et al. 2022 (arXiv:2103.10504).

    Of an encoder that has maps of several resolutions, each joins at its own, as in a U-Net.
    """

    FLOPS: ClassVar[int] = 25_000  # of a voxel, forward; convolutions are of a kind that is slow

    name: Literal["unetr"] = "unetr"

    def build(self, encoder: "Encoder") -> "VoxelDecoder":
        """From crops to a map at full resolution."""
        from ssl_pipeline.evaluation.decoders.upsampling import SkipUpsampler

        return SkipUpsampler(encoder)
