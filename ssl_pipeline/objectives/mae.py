"""Masked autoencoding alone: reconstruct the hidden patches of the clean crop."""

from typing import Literal

from ssl_pipeline.objectives.config import ObjectiveSection
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.term import Term


class Mae(ObjectiveSection):
    """Sparse 3D MAE (He et al. 2022, arXiv:2111.06377) on two crops of a sample."""

    name: Literal["mae"] = "mae"
    reconstruction: Reconstruction = Reconstruction()

    def list_terms(self) -> tuple[Term, ...]:
        """Reconstruction alone."""
        return (self.reconstruction,)
