"""Classifiers on frozen features; adding one is one file and one line in this union."""

from typing import Annotated, get_args

from pydantic import Field

from ssl_pipeline.evaluation.probes.knn import Knn
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.probes.sweep import Sweep

ProbeMethod = Annotated[Knn | Linear | Sweep, Field(discriminator="name")]
_KINDS = get_args(get_args(ProbeMethod)[0])
TITLES: dict[str, str] = {kind.model_fields["name"].default: kind.TITLE for kind in _KINDS}
