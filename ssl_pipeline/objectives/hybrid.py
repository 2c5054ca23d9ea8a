"""Masked reconstruction with contrast ramped in, from ONE sparse pass of the encoder.

The defaults suit small budgets: on 136 CTs, 100 scans of MR and minutes of CPU, contrast between
locations, ramped in early, improved the frozen features, and that between subjects harmed them.
"""

from typing import Literal

from ssl_pipeline.objectives.config import ObjectiveSection
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.term import Ramp, Term


class Hybrid(ObjectiveSection):
    """CAN-like hybrid (Mishra et al. 2022, arXiv:2210.16870) in 3D, with a local contrast."""

    name: Literal["hybrid"] = "hybrid"
    reconstruction: Reconstruction = Reconstruction()
    contrast: Contrast = Contrast()
    ramp: Ramp = Ramp()

    def list_terms(self) -> tuple[Term, ...]:
        """Reconstruction, and both kinds of contrast with the ramp."""
        return (self.reconstruction, *self.contrast.list_terms(self.ramp))
