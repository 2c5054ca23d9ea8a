"""The decoder of a U-Net: a skip connection at every resolution, and norms as in nnU-Net."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.models.voxel_decoder import VoxelDecoder


def missing_decoder_error(encoder: str) -> UserError:
    """That an encoder, by its name in the study, has no decoder to start from."""
    return UserError(
        f"The encoder {encoder!r} was pretrained without a U-Net's decoder, and "
        "finetune.decoder.start is pretrained: set it to random, or take an encoder whose objective"
        " has a term with decoder: unet."
    )


class UNet(Section):
    """Upsampling that joins the encoder's maps, supervised at every resolution.

    A convolutional encoder becomes nnU-Net's residual-encoder U-Net (Isensee et al. 2024,
    arXiv:2404.09556). A transformer has maps of one resolution alone: convolutions of the crop
    itself give the finer ones, and tokens join at their own.
    """

    # Of a voxel, forward, with the stem beside a transformer; 13,000 to 200,000 on `resenc`.
    FLOPS: ClassVar[int] = 60_000
    ACTIVATIONS: ClassVar[int] = 200  # of a voxel, kept for the backward pass

    name: Literal["unet"] = "unet"
    start: Literal["random", "pretrained"] = Field(
        "random",
        description="where its weights start; pretrained: where pretraining left them, with a term"
        " of decoder: unet, and they learn at the rate of the encoder",
    )

    def build(self, encoder: "Encoder") -> "VoxelDecoder":
        """The module from crops to maps of every resolution."""
        from ssl_pipeline.models.unet_decoder import UNetDecoder

        return UNetDecoder(encoder)
