"""Weights that a run may start from: a new format is one file, and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.init_from.bundle import Bundle
from ssl_pipeline.init_from.monai import Monai
from ssl_pipeline.init_from.timm import Timm

InitFrom = Annotated[Bundle | Timm | Monai, Field(discriminator="name")]

__all__ = ["Bundle", "InitFrom", "Monai", "Timm"]
