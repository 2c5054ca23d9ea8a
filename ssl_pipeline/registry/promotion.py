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


class PastVerdict(RecordPart):
    """A verdict of a study, whether or not its challenger is in the registry."""

    champion: str  # ID of the entry that was compared with
    criteria: str  # their SHA-256
    verdict: str
    decided_at: str  # UTC, ISO 8601


class CriteriaHistory(Record):
    """All criteria that a study has had, and all verdicts by them, the first ones first."""

    format: Literal[1] = 1
    versions: tuple[CriteriaVersion, ...]
    verdicts: tuple[PastVerdict, ...] = ()


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
    # Of the same study on the same champion, for any challenger, by other criteria.
    other_verdicts: tuple[PastVerdict, ...] = ()

    @property
    def criteria_note(self) -> str:
        """When the criteria were fixed, and whether results had been seen by then."""
        last = self.versions[-1]
        seen = "" if last.results_before else ", before the challenger was evaluated"
        note = f"Criteria {last.sha256[:12]} were fixed at {last.fixed_at} UTC{seen}."
        return f"{note} {self.caution}".strip()

    @property
    def caution(self) -> str:
        """That criteria were changed or written after a look; empty where they were not."""
        last, looks = self.versions[-1], []
        if last.results_before:
            looks.append(f"results of {', '.join(last.results_before)} were there by then")
        if self.other_verdicts:
            past = ", ".join(
                f"{each.verdict} by criteria {each.criteria[:12]} on {each.decided_at[:10]}"
                for each in self.other_verdicts
            )
            looks.append(f"the study has had other verdicts on the same champion ({past})")
        if not looks:
            return ""
        how = "changed" if len(self.versions) > 1 or self.other_verdicts else "first written"
        return (
            f"The criteria were {how} after a look: {', and '.join(looks)}, so the error rates of "
            "the gate do not hold."
        )

    @property
    def reason(self) -> str:
        """The reason of the verdict, with the caution where there is one."""
        return f"{self.decision.reason} {self.caution}".strip()


class PromotionRecord(Record):
    """What the stage promote has done."""

    format: Literal[1] = 1
    promotion: Promotion
    entry: str  # ID of the challenger in the registry; empty where it was not promoted
    domains: DomainTable
