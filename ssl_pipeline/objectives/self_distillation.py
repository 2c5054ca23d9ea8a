"""Self-distillation, of crops, of hidden patches too, or beside masked reconstruction."""

from typing import Literal

from ssl_pipeline.objectives.config import DistillingObjective
from ssl_pipeline.objectives.terms.dino import Dino
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.term import Term


class HybridDino(DistillingObjective):
    """Masked reconstruction and self-distillation of crops, from one sparse pass."""

    name: Literal["hybrid_dino"] = "hybrid_dino"
    reconstruction: Reconstruction = Reconstruction()
    dino: Dino = Dino()

    def list_terms(self) -> tuple[Term, ...]:
        """Reconstruction and self-distillation."""
        return self.reconstruction, self.dino
