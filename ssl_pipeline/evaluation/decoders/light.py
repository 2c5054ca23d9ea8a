"""Tokens alone, enlarged by transposed convolutions."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.config.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.evaluation.decoders.upsampling import VoxelDecoder
    from ssl_pipeline.models.encoder import Encoder


class LightDecoder(Section):
    """The smallest decoder: what it draws, the encoder has seen."""

    FLOPS: ClassVar[int] = 12_000  # of a voxel, forward; convolutions are of a kind that is slow

    name: Literal["light"] = "light"

    def build(self, encoder: "Encoder") -> "VoxelDecoder":
        """From crops to a map at full resolution."""
        from ssl_pipeline.evaluation.decoders.upsampling import TokenUpsampler

        return TokenUpsampler(encoder)
