"""Decoders from features to voxels; adding one is one file and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.evaluation.decoders.light import LightDecoder
from ssl_pipeline.evaluation.decoders.unetr import UnetrDecoder

DecoderConfig = Annotated[LightDecoder | UnetrDecoder, Field(discriminator="name")]
