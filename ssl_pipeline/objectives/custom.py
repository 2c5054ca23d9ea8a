"""Any list of terms, each with a weight and, if wanted, a ramp of its own."""

from typing import Literal

from pydantic import Field, model_validator

from ssl_pipeline.objectives.config import DistillingObjective
from ssl_pipeline.objectives.terms import TermConfig
from ssl_pipeline.objectives.terms.term import Term


class Custom(DistillingObjective):
    """The terms that a study lists."""

    name: Literal["custom"] = "custom"
    terms: tuple[TermConfig, ...] = Field(
        min_length=1, description="terms of the objective, each once"
    )

    @model_validator(mode="after")
    def _check_terms(self) -> "Custom":
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(f"terms is {names}: give each once")
        if not any(term.weight for term in self.terms):
            raise ValueError(f"terms is {names}, and all weights are 0: give one a weight")
        return self

    def list_terms(self) -> tuple[Term, ...]:
        """The terms as they are listed."""
        return self.terms
