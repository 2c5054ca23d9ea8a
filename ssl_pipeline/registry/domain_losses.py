"""What encoders lose and gain from domain to domain, on the same places of each.

Backward transfer is the rise of an earlier encoder's loss in the domains that it knew, forward
transfer how much less it loses than random weights in a domain that it did not (Lopez-Paz & Ranzato
2017, arXiv:1706.08840, with losses for accuracies).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from ssl_pipeline.evaluation.statistics.estimates import Estimate, MetricEstimate, to_json_number
from ssl_pipeline.evaluation.statistics.gate import Criterion, PairedContrast
from ssl_pipeline.evaluation.statistics.intervals import MIN_SUBJECTS, half_width
from ssl_pipeline.io.records import RecordPart
from ssl_pipeline.training.domain_bank import DomainBank, DomainMeasure

Measures = Mapping[str, DomainMeasure]  # of one encoder, by the SHA-256 of the bank


def criterion_name(bank: DomainBank) -> str:
    """The criterion that nothing is forgotten of a domain."""
    return f"held-out loss in {bank.title}"


def forgetting_criterion(
    bank: DomainBank, champion: DomainMeasure, challenger: DomainMeasure, largest_rise: float
) -> Criterion:
    """That the loss has not risen by more than `largest_rise`, a share of the champion's."""
    before, after = _paired(bank, champion, challenger)
    if not before.pseudovalues.size:
        return missing_criterion(bank, "none of its held-out volumes is stored here any more")
    allowed = before.minus(before, -largest_rise)
    return Criterion(
        name=criterion_name(bank),
        kind="loss",
        margin=0.0,
        expected=largest_rise * float(before.per_seed.mean()),
        contrast=PairedContrast.from_estimate(allowed.minus(after)),
    )


def missing_criterion(bank: DomainBank, reason: str) -> Criterion:
    """The same where it cannot be measured."""
    return Criterion(
        name=criterion_name(bank),
        kind="loss",
        margin=0.0,
        expected=0.0,
        contrast=None,
        absence=reason,
    )


class DomainRow(RecordPart):
    """A domain, measured with each encoder of a table."""

    domain: str
    n_subjects: int
    losses: tuple[Estimate | None, ...]  # one an encoder, None where it was not measured
    retrieval_accuracy: tuple[float | None, ...]
    rankme: tuple[float | None, ...]
    prediction_scores: dict[str, float | None] = Field({})  # of the last encoder, by target


class DomainTable(RecordPart):
    """Held-out losses by domain and encoder, the oldest encoder first."""

    encoders: tuple[str, ...]
    rows: tuple[DomainRow, ...]
    # Mean over the domains that an encoder before has brought in, of how much its loss rose since.
    backward: Estimate | None
    # Mean over new domains of how much less the champion loses there than random weights.
    forward: Estimate | None


def domain_table(
    banks: Mapping[str, DomainBank],
    encoders: Mapping[str, Measures],
    champion: Measures,
    random: Measures,
    confidence: float,
) -> DomainTable:
    """The table of these encoders, the oldest first and the challenger last.

    `champion` and `random` are measures in the domains that are new.
    """
    *earlier, challenger = encoders.values()
    first = {sha: m for own in reversed(earlier) for sha, m in own.items() if sha not in random}
    return DomainTable(
        encoders=tuple(encoders),
        rows=tuple(
            _domain_row(bank, [own.get(sha) for own in encoders.values()], confidence)
            for sha, bank in banks.items()
        ),
        backward=mean_rise(banks, first, challenger, confidence),
        forward=mean_rise(banks, champion, random, confidence),
    )


def _domain_row(
    bank: DomainBank, measures: Sequence[DomainMeasure | None], confidence: float
) -> DomainRow:
    return DomainRow(
        domain=bank.title,
        n_subjects=len({place.subject for place in bank.places}),
        losses=tuple(mean_loss(bank, m, confidence) if m else None for m in measures),
        retrieval_accuracy=tuple(m.retrieval_accuracy if m else None for m in measures),
        rankme=tuple(m.rankme if m else None for m in measures),
        prediction_scores=measures[-1].prediction_scores if measures[-1] else {},
    )


def mean_loss(bank: DomainBank, measure: DomainMeasure, confidence: float) -> Estimate:
    """The mean loss over the subjects of a domain."""
    values = np.array(list(measure.subject_losses(bank).values()))
    return _estimate([values], confidence)


def mean_rise(
    banks: Mapping[str, DomainBank], before: Measures, after: Measures, confidence: float
) -> Estimate | None:
    """The mean over domains of how much the loss rose; None without a domain of both."""
    rises = []
    for sha256 in before.keys() & after.keys() & banks.keys():
        old, new = _paired(banks[sha256], before[sha256], after[sha256])
        if old.pseudovalues.size:
            rises.append((new.pseudovalues - old.pseudovalues)[0])
    return _estimate(rises, confidence) if rises else None


def _paired(
    bank: DomainBank, first: DomainMeasure, second: DomainMeasure
) -> tuple[MetricEstimate, MetricEstimate]:
    """Losses of the subjects that both have, as one seed."""
    ours, theirs = first.subject_losses(bank), second.subject_losses(bank)
    both = sorted(ours.keys() & theirs.keys())
    return _one_seed([ours[n] for n in both]), _one_seed([theirs[n] for n in both])


def _one_seed(values: Sequence[float]) -> MetricEstimate:
    row = np.array([values], np.float64)
    return MetricEstimate(np.array([row.mean() if row.size else math.nan]), row)


def _estimate(groups: Sequence[np.ndarray], confidence: float) -> Estimate:
    """The mean of the means of independent groups of subjects (n,), with its interval."""
    mean, half = float(np.mean([group.mean() for group in groups])), math.nan
    if min(len(group) for group in groups) >= MIN_SUBJECTS:
        half = math.hypot(*(half_width(group[None], confidence) for group in groups)) / len(groups)
    return Estimate(
        mean=to_json_number(mean), low=to_json_number(mean - half), high=to_json_number(mean + half)
    )
