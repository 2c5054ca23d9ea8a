"""Decoders from features to voxels; adding one is one file and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.evaluation.decoders.light import Light
from ssl_pipeline.evaluation.decoders.unet import UNet

DecoderConfig = Annotated[Light | UNet, Field(discriminator="name")]
