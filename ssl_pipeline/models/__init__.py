"""Backbones: a new one is one file with its section and `build()`, and one line in this union.

A section that does not say its name is a vision transformer's, as all were before there was a
choice.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ssl_pipeline.models.resenc_config import ResEnc
from ssl_pipeline.models.vit_config import ViT


def _named(said: Any) -> Any:
    return {"name": "vit", **said} if isinstance(said, dict) else said


ModelConfig = Annotated[
    ViT | ResEnc,
    Field(discriminator="name"),
    BeforeValidator(_named),
]

__all__ = ["ModelConfig", "ResEnc", "ViT"]
