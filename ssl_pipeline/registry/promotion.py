"""The record of a promotion: by which criteria, fixed when, what was found, and the verdict.

As the guidance of the FDA on predetermined change control plans (2024) asks: acceptance criteria
that were written down before, and whether they were changed after results had been seen.
"""

from collections.abc import Mapping
from typing import Any, Literal

from ssl_pipeline.evaluation.statistics.gate import GateDecision
from ssl_pipeline.io.records import Record, RecordPart
from ssl_pipeline.registry.domain_losses import DomainTable
from ssl_pipeline.training.domain_bank import DomainMeasure

PROMOTION_FILE = "promotion.json"


class CriteriaVersion(RecordPart):
    """Criteria as they were fixed at one time."""

    sha256: str
    fixed_at: str  # UTC, ISO 8601; by the clock of the machine that fixed them
    results_before: tuple[str, ...]  # evaluations of the challenger that were there by then


class CriteriaHistory(Record):
    """All criteria that a study has had, the first ones first."""

    format: Literal[1] = 1
    versions: tuple[CriteriaVersion, ...]


class Promotion(RecordPart):
    """A challenger before the gate."""

    champion: str  # ID of the entry that it is compared with; empty where there was none
    criteria: Mapping[str, Any]
    versions: tuple[CriteriaVersion, ...]  # the present one last
    decision: GateDecision
    measures: tuple[DomainMeasure, ...]  # of the challenger, on the bank of each domain
    # Of the champion, and of random weights, on banks that it had not been measured on.
    champion_measures: tuple[DomainMeasure, ...] = ()
    random_measures: tuple[DomainMeasure, ...] = ()

    @property
    def criteria_note(self) -> str:
        """When the criteria were fixed, and whether results had been seen by then."""
        last = self.versions[-1]
        note = f"Criteria {last.sha256[:12]} were fixed at {last.fixed_at} UTC"
        if not last.results_before:
            return f"{note}, before the challenger was evaluated."
        how = "changed" if len(self.versions) > 1 else "first written"
        return (
            f"{note} and {how} after a look: results of {', '.join(last.results_before)} were "
            "there by then, so the error rates of the gate do not hold."
        )


class PromotionRecord(Record):
    """What the stage promote has done."""

    format: Literal[1] = 1
    promotion: Promotion
    entry: str  # ID of the challenger in the registry; empty where it was not promoted
    domains: DomainTable
