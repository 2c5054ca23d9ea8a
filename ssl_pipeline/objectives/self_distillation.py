"""Self-distillation, of crops, of hidden patches too, or beside masked reconstruction."""

from typing import Literal

from ssl_pipeline.objectives.config import DistillingObjective
from ssl_pipeline.objectives.terms.dino import Dino
from ssl_pipeline.objectives.terms.ibot import Ibot
from ssl_pipeline.objectives.terms.koleo import Koleo
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.term import Term


class DinoOnly(DistillingObjective):
    """Self-distillation of crops, whose embeddings KoLeo spreads."""

    name: Literal["dino"] = "dino"
    dino: Dino = Dino()
    koleo: Koleo = Koleo(weight=0.1)

    def list_terms(self) -> tuple[Term, ...]:
        """Self-distillation and KoLeo."""
        return self.dino, self.koleo


class DinoIbot(DistillingObjective):
    """Self-distillation of crops and hidden patches, weighted as in DINOv2 (arXiv:2304.07193)."""

    name: Literal["ibot"] = "ibot"
    dino: Dino = Dino()
    ibot: Ibot = Ibot()
    koleo: Koleo = Koleo(weight=0.1)

    def list_terms(self) -> tuple[Term, ...]:
        """Both kinds of self-distillation, and KoLeo."""
        return self.dino, self.ibot, self.koleo


class HybridDino(DistillingObjective):
    """Masked reconstruction and self-distillation of crops, from one sparse pass."""

    name: Literal["hybrid_dino"] = "hybrid_dino"
    reconstruction: Reconstruction = Reconstruction()
    dino: Dino = Dino()

    def list_terms(self) -> tuple[Term, ...]:
        """Reconstruction and self-distillation."""
        return self.reconstruction, self.dino
