"""The light decoder: the last tokens, upsampled by transposed convolutions."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.config.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.evaluation.decoders.upsampling import VoxelDecoder
    from ssl_pipeline.models.encoder import Encoder


class LightDecoder(Section):
    """The smallest decoder, which depends most on the features of the encoder."""

    FLOPS: ClassVar[int] = 12_000  # of a voxel, forward; convolutions of few channels are slow

    name: Literal["light"] = "light"

    def build(self, encoder: "Encoder") -> "VoxelDecoder":
        """The module from crops to a map at full resolution."""
        from ssl_pipeline.evaluation.decoders.upsampling import TokenUpsampler

        return TokenUpsampler(encoder)
