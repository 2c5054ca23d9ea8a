"""Contrast alone: views of one place agree, subjects and far places differ."""

from typing import TYPE_CHECKING, Literal

from ssl_pipeline.objectives.config import Contrast
from ssl_pipeline.section import Section

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.objective import Objective


class Contrastive(Section):
    """Global and local contrast on sparse views, from the first step on."""

    name: Literal["contrastive"] = "contrastive"
    contrast: Contrast = Contrast()

    def build(self, encoder: "Encoder") -> "Objective":
        """The objective around an encoder."""
        from ssl_pipeline.objectives.objective import Objective

        return Objective(encoder, reconstruction=None, contrast=self.contrast, ramp=None)
