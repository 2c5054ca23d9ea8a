"""Scores of subgroups of the scored scans: those of one scanner, protocol, sex or other attribute.

A mean over everyone hides whom a model fails. Each subgroup is scored as the whole is, and the gap
is between the subgroups with the best and the worst score.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl_pipeline.evaluation.metrics.scores import CellScores, Predictions, ScoreFunction
from ssl_pipeline.evaluation.statistics.estimates import (
    Estimate,
    MetricEstimate,
    to_json_number,
)
from ssl_pipeline.evaluation.statistics.intervals import MIN_SUBJECTS, half_width
from ssl_pipeline.store.catalog import ScanRow, check_scan_attribute, scan_attribute

UNKNOWN = "unknown"


class Gap(Estimate):
    """Difference of the best subgroup from the worst."""

    worst: str
    best: str


@dataclass(frozen=True)
class Subgroup:
    """Scored scans with one value of an attribute."""

    name: str  # of the target, or root, site or modality
    value: str
    scans: frozenset[str]
    subjects: tuple[str, ...]

    def score(self, score: ScoreFunction, predictions: Predictions) -> CellScores | None:
        """Metrics of a cell's predictions for the subgroup; None where it has none of them."""
        own = [row for row in predictions if row["scan"] in self.scans]
        return score(self.subjects, own) if own else None


def find_subgroups(
    test_entries: Sequence[ScanRow], names: Sequence[str], all_entries: Sequence[ScanRow]
) -> list[Subgroup]:
    """Subgroups of the scored scans by each of `names`; none where no scored scan has a value.

    Raises UserError for a name that no scan of the study has.
    """
    found = []
    for name in names:
        check_scan_attribute("evaluate.subgroups", all_entries, name)
        values = {scan_attribute(entry, name) for entry in test_entries}
        for value in sorted(values) if values - {""} else ():
            own = [entry for entry in test_entries if scan_attribute(entry, name) == value]
            subjects = tuple(dict.fromkeys(entry.subject for entry in own))
            scans = frozenset(entry.id for entry in own)
            found.append(Subgroup(name, value or UNKNOWN, scans, subjects))
    return found


def subgroup_gap(by_value: Mapping[str, MetricEstimate], confidence: float) -> Gap:
    """Gap between the worst and the best of several subgroups, by their means.

    The interval holds for every pair of subgroups at once (Bonferroni), for the two are chosen by
    their scores. It takes them to be independent; that seeds are common makes it too wide, if
    anything.
    """
    ranked = sorted(by_value, key=lambda value: float(by_value[value].per_seed.mean()))
    worst, best = by_value[ranked[0]], by_value[ranked[-1]]
    mean, half = float(best.per_seed.mean() - worst.per_seed.mean()), math.nan
    if min(worst.pseudovalues.shape[1], best.pseudovalues.shape[1]) >= MIN_SUBJECTS:
        level = 1 - (1 - confidence) / math.comb(len(ranked), 2)
        half = math.hypot(*(half_width(each.pseudovalues, level) for each in (worst, best)))
    return Gap(
        worst=ranked[0],
        best=ranked[-1],
        mean=to_json_number(mean),
        low=to_json_number(mean - half),
        high=to_json_number(mean + half),
    )
