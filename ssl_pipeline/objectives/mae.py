"""Masked autoencoding alone: reconstruct the hidden patches of the clean crop."""

from typing import TYPE_CHECKING, Literal

from ssl_pipeline.config.section import Section
from ssl_pipeline.objectives.config import Reconstruction

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.objective import Objective


class Mae(Section):
    """Sparse 3D MAE (He et al. 2022, arXiv:2111.06377) on two crops of a sample."""

    name: Literal["mae"] = "mae"
    reconstruction: Reconstruction = Reconstruction()

    def build(self, encoder: "Encoder") -> "Objective":
        """The objective around an encoder."""
        from ssl_pipeline.objectives.objective import Objective

        return Objective(encoder, reconstruction=self.reconstruction, contrast=None, ramp=None)
