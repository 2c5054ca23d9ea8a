"""The interface of objectives: each is a list of terms; imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.objectives.terms.term import UNET_PASSES, Term
from ssl_pipeline.store.catalog import ScanRow

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.objective import Objective


class ObjectiveSection(Section, ABC):
    """The section of an objective, which other parts ask for its terms alone."""

    name: str

    @abstractmethod
    def list_terms(self) -> tuple[Term, ...]:
        """The terms, in the order in which their heads are initialized."""

    @property
    def trains_decoder(self) -> bool:
        """Whether a term trains a U-Net's decoder along with the encoder."""
        return any(term.passes & UNET_PASSES for term in self.list_terms())

    def build(self, encoder: "Encoder") -> "Objective":
        """The objective around an encoder."""
        from ssl_pipeline.objectives.objective import Objective

        return Objective(encoder, self.list_terms())

    def metadata_used(self) -> tuple[str, ...]:
        """Names of all metadata of scans that a term depends on."""
        return tuple(name for term in self.list_terms() for name in term.metadata_used())

    def metadata_features(
        self, entries: Sequence[ScanRow]
    ) -> Float[NDArray[np.float32], "n columns"]:
        """The metadata of scans as numbers, term by term."""
        return np.concatenate([term.metadata_features(entries) for term in self.list_terms()], 1)

    def check_metadata(self, entries: Sequence[ScanRow]) -> None:
        """Raise UserError where a term learns nothing of the metadata of training scans."""
        for term in self.list_terms():
            term.check_metadata(entries)


class DistillingObjective(ObjectiveSection):
    """The section of an objective whose terms may have a teacher."""

    teacher_momentum: float = Field(
        0.992,
        ge=0.5,
        lt=1,
        description="decay of the average of encoder and heads that is the teacher of "
        "self-distillation",
    )

    def build(self, encoder: "Encoder") -> "Objective":
        """The objective around an encoder, with its teacher where a term has one."""
        from ssl_pipeline.objectives.objective import Objective

        return Objective(encoder, self.list_terms(), self.teacher_momentum)
