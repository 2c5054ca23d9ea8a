"""Objectives of pretraining: a new one is one file and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.objectives.contrastive import Contrastive
from ssl_pipeline.objectives.hybrid import Hybrid
from ssl_pipeline.objectives.mae import Mae

ObjectiveConfig = Annotated[Mae | Contrastive | Hybrid, Field(discriminator="name")]

__all__ = ["Contrastive", "Hybrid", "Mae", "ObjectiveConfig"]
