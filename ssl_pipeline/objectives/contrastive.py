"""Contrast alone, between locations of a scan, and between subjects where that has a weight."""

from typing import TYPE_CHECKING, Literal

from ssl_pipeline.config.section import Section
from ssl_pipeline.objectives.config import Contrast

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.objective import Objective


class Contrastive(Section):
    """Local contrast, and global if it has a weight, on sparse views, from the first step on."""

    name: Literal["contrastive"] = "contrastive"
    contrast: Contrast = Contrast()

    def build(self, encoder: "Encoder") -> "Objective":
        """The objective around an encoder."""
        from ssl_pipeline.objectives.objective import Objective

        return Objective(encoder, reconstruction=None, contrast=self.contrast, ramp=None)
