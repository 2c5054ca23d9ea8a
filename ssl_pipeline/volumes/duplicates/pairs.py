"""Pairs of near duplicates among the scans of an inventory."""

from collections.abc import Sequence

from ssl_pipeline.volumes.discovery import Candidate
from ssl_pipeline.volumes.duplicates.near_duplicates import find_near_duplicates
from ssl_pipeline.volumes.scan_check import ScanCheck


def find_duplicate_pairs(
    candidates: Sequence[Candidate],
    checks: Sequence[ScanCheck],
    threshold: float | None,
) -> list[tuple[int, int]]:
    """Pairs of near duplicates of two subjects, by position, of scans that are or were usable.

    Without a threshold there are none.
    """
    if threshold is None:
        return []
    fit = {at: each.keypoints for at, each in enumerate(checks) if each.keypoints}
    numbers = list(fit)
    names = [candidates[at].subject_name for at in numbers]
    found = find_near_duplicates([*fit.values()], threshold, names)
    return [(numbers[low], numbers[high]) for low, high in found]
