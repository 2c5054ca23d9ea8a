"""Pairs of near duplicates among the scans of an inventory, less those that a reader told apart."""

from collections.abc import Sequence

from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.duplicates.near_duplicates import find_near_duplicates
from ssl_pipeline.volumes.review import Decisions, pair_sha256
from ssl_pipeline.volumes.scan_check import ScanCheck


def find_duplicate_pairs(
    candidates: Sequence[Candidate],
    checks: Sequence[ScanCheck],
    threshold: float | None,
    decisions: Decisions,
) -> list[tuple[int, int]]:
    """Pairs of near duplicates of two subjects, by position, of scans that are or were usable.

    Those that a reader found to be of two subjects are left out; without a threshold there are
    none.
    """
    if threshold is None:
        return []
    fit = {at: each.keypoints for at, each in enumerate(checks) if each.keypoints}
    numbers = list(fit)
    names = [candidates[at].subject_name for at in numbers]
    found = find_near_duplicates([*fit.values()], threshold, names)
    pairs = [(numbers[low], numbers[high]) for low, high in found]

    def is_distinct(pair: tuple[int, int]) -> bool:
        seen = decisions.distinct_pairs.get(frozenset(candidates[at].id for at in pair))
        return seen == pair_sha256(checks[at].info.sha256 for at in pair)

    return [pair for pair in pairs if not is_distinct(pair)]
