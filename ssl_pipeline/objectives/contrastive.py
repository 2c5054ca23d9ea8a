"""Contrast alone, between locations of a scan, and between subjects where that has a weight."""

from typing import Literal

from ssl_pipeline.objectives.config import ObjectiveSection
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.terms.term import Term


class Contrastive(ObjectiveSection):
    """Local contrast, and global if it has a weight, on sparse views, from the first step on."""

    name: Literal["contrastive"] = "contrastive"
    contrast: Contrast = Contrast()

    def list_terms(self) -> tuple[Term, ...]:
        """Both kinds of contrast, without a ramp."""
        return self.contrast.list_terms(ramp=None)
