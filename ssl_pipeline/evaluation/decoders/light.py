"""Tokens alone, enlarged by transposed convolutions."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.evaluation.decoders.rise import Rise
    from ssl_pipeline.models.encoder import Encoder


class Light(Section):
    """The smallest decoder: what it draws, the encoder has seen."""

    FLOPS: ClassVar[int] = 12_000  # of a voxel, forward; convolutions are of a kind that is slow

    name: Literal["light"] = "light"

    def build(self, encoder: "Encoder") -> "Rise":
        """From crops to a map at full resolution."""
        from ssl_pipeline.evaluation.decoders.rise import FromTokens

        return FromTokens(encoder)
