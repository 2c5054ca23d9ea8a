"""Scores of some of the scored scans: those of one scanner, protocol, sex, or whatever is known.

A mean over everyone hides whom a model fails. Each group is scored as the whole is, and the gap is
between the group that fares best and the one that fares worst.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_pipeline.evaluation.estimates import Estimate, number
from ssl_pipeline.evaluation.metrics import Scored, scored
from ssl_pipeline.evaluation.statistics import FEWEST, half_width
from ssl_pipeline.store.catalog import Entry, check_said, said

UNKNOWN = "not known"


@dataclass(frozen=True)
class Group:
    """Scored scans of which one thing is said."""

    name: str  # of the target, or root, site or modality
    value: str
    scans: frozenset[str]
    subjects: tuple[str, ...]

    def scored(self, predictions: Sequence[Mapping[str, Any]]) -> Scored | None:
        """Figures of a cell's predictions for the group alone; None where it has none of them."""
        own = [row for row in predictions if row["scan"] in self.scans]
        return scored(self.subjects, own) if own else None


def groups(scored: Sequence[Entry], names: Sequence[str], everyone: Sequence[Entry]) -> list[Group]:
    """The groups of scored scans by each of `names`, as far as they are known of any of them.

    Raises UserError for a name that no scan of the study has.
    """
    found = []
    for name in names:
        check_said("evaluate.groups", everyone, name)
        values = {said(entry, name) for entry in scored}
        for value in sorted(values) if values - {""} else ():
            own = [entry for entry in scored if said(entry, name) == value]
            subjects = tuple(dict.fromkeys(entry.subject for entry in own))
            scans = frozenset(entry.id for entry in own)
            found.append(Group(name, value or UNKNOWN, scans, subjects))
    return found


def gap(by_value: Mapping[str, Estimate], confidence: float) -> dict[str, Any]:
    """How far the worst of several groups is behind the best, by their means.

    The interval holds for every pair of the groups at once (Bonferroni), for the two are chosen by
    what they scored. It takes them to be independent; that seeds are common makes it too wide, if
    anything.
    """
    ranked = sorted(by_value, key=lambda value: float(by_value[value].per_seed.mean()))
    worst, best = by_value[ranked[0]], by_value[ranked[-1]]
    mean, half = float(best.per_seed.mean() - worst.per_seed.mean()), math.nan
    if min(worst.parts.shape[1], best.parts.shape[1]) >= FEWEST:
        surely = 1 - (1 - confidence) / math.comb(len(ranked), 2)
        half = math.hypot(*(half_width(each.parts, surely) for each in (worst, best)))
    told = {"mean": number(mean), "low": number(mean - half), "high": number(mean + half)}
    return {"worst": ranked[0], "best": ranked[-1], **told}
