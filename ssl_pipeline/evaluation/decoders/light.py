"""The light decoder: the last tokens, upsampled by transposed convolutions."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_pipeline.config.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.models.voxel_decoder import VoxelDecoder


class Light(Section):
    """The smallest decoder, which depends most on the features of the encoder."""

    FLOPS: ClassVar[int] = 12_000  # of a voxel, forward; convolutions of few channels are slow
    ACTIVATIONS: ClassVar[int] = 60  # of a voxel, kept for the backward pass
    start: ClassVar[Literal["random"]] = "random"  # pretraining has none

    name: Literal["light"] = "light"
    input_skip: bool = Field(
        True,
        description="join the voxels themselves at the end, for tokens alone blur a boundary; on an"
        " easy task that shortcut carries much of the result, whatever the encoder has learned",
    )

    def build(self, encoder: "Encoder") -> "VoxelDecoder":
        """The module from crops to a map at full resolution."""
        from ssl_pipeline.evaluation.decoders.upsampling import TokenUpsampler

        return TokenUpsampler(encoder, with_input_skip=self.input_skip)
