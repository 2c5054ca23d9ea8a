"""Masked reconstruction with contrast ramped in, from ONE sparse pass of the encoder.

The defaults suit small budgets: on 136 CTs, 100 scans of MR and minutes of CPU, contrast between
locations, ramped in early, improved the frozen features, and that between subjects harmed them.
"""

from typing import TYPE_CHECKING, Literal

from ssl_pipeline.config.section import Section
from ssl_pipeline.objectives.config import Contrast, Ramp, Reconstruction

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.objective import Objective


class Hybrid(Section):
    """CAN-like hybrid (Mishra et al. 2022, arXiv:2210.16870) in 3D, with a local contrast."""

    name: Literal["hybrid"] = "hybrid"
    reconstruction: Reconstruction = Reconstruction()
    contrast: Contrast = Contrast()
    ramp: Ramp = Ramp()

    def build(self, encoder: "Encoder") -> "Objective":
        """The objective around an encoder."""
        from ssl_pipeline.objectives.objective import Objective

        return Objective(
            encoder, reconstruction=self.reconstruction, contrast=self.contrast, ramp=self.ramp
        )
