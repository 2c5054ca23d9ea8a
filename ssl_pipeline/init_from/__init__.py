"""Sources of initial weights: a new format is one module, and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.init_from.bundle import BundleWeights
from ssl_pipeline.init_from.huggingface import HuggingFaceWeights
from ssl_pipeline.init_from.monai import MonaiWeights
from ssl_pipeline.init_from.registry import RegistryWeights
from ssl_pipeline.init_from.timm import TimmWeights

InitFrom = Annotated[
    BundleWeights | TimmWeights | HuggingFaceWeights | MonaiWeights | RegistryWeights,
    Field(discriminator="name"),
]

__all__ = [
    "BundleWeights",
    "HuggingFaceWeights",
    "InitFrom",
    "MonaiWeights",
    "RegistryWeights",
    "TimmWeights",
]
