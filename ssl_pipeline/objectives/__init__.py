"""Objectives of pretraining, each a list of terms: presets by name, and `custom` for any list."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.objectives.contrastive import Contrastive
from ssl_pipeline.objectives.custom import Custom
from ssl_pipeline.objectives.dense import Dense
from ssl_pipeline.objectives.hybrid import Hybrid
from ssl_pipeline.objectives.mae import Mae
from ssl_pipeline.objectives.self_distillation import DinoIbot, DinoOnly, HybridDino

ObjectiveConfig = Annotated[
    Mae | Contrastive | Hybrid | Dense | DinoOnly | DinoIbot | HybridDino | Custom,
    Field(discriminator="name"),
]

__all__ = [
    "Contrastive",
    "Custom",
    "Dense",
    "DinoIbot",
    "DinoOnly",
    "Hybrid",
    "HybridDino",
    "Mae",
    "ObjectiveConfig",
]
