"""Backbones: a new one is one file with its section and `build()`, and one line in this union.

A section without a name is a vision transformer's, the default.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ssl_pipeline.models.resenc_config import ResEnc
from ssl_pipeline.models.vit_config import ViT


def _with_default_name(section: Any) -> Any:
    return {"name": "vit", **section} if isinstance(section, dict) else section


ModelConfig = Annotated[
    ViT | ResEnc,
    Field(discriminator="name"),
    BeforeValidator(_with_default_name),
]

__all__ = ["ModelConfig", "ResEnc", "ViT"]
