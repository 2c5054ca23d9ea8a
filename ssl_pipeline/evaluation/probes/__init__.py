"""Classifiers on frozen features; adding one is one file and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.evaluation.probes.knn import Knn
from ssl_pipeline.evaluation.probes.linear import Linear

ProbeMethod = Annotated[Knn | Linear, Field(discriminator="name")]
