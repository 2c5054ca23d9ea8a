"""Backbones: a new one is one file with its `Config` and `build()`, and one line in this union."""

from ssl_pipeline.models.vit_config import ViT

ModelConfig = ViT

__all__ = ["ModelConfig", "ViT"]
