"""Contrast between points of a scan alone, on whole crops."""

from typing import Literal

from ssl_pipeline.objectives.config import ObjectiveSection
from ssl_pipeline.objectives.terms.dense_contrast import DenseContrast
from ssl_pipeline.objectives.terms.term import Term


class Dense(ObjectiveSection):
    """Features of points, for tasks that ask where something is."""

    name: Literal["dense"] = "dense"
    dense_contrast: DenseContrast = DenseContrast()

    def list_terms(self) -> tuple[Term, ...]:
        """Contrast between points alone."""
        return (self.dense_contrast,)
