"""Inspection of all scans of a study, by threads; each check is kept in a journal as it comes."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ssl_pipeline.progress import progress
from ssl_pipeline.volumes.check_journal import CheckJournal
from ssl_pipeline.volumes.discovery import Candidate, Discovery
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.review import Decisions
from ssl_pipeline.volumes.scan_check import ScanCheck, inspect_scan

WORKERS = min(4, os.cpu_count() or 1)


def inspect_scans(
    discovery: Discovery,
    thresholds: QualityThresholds,
    decisions: Decisions,
    known: Mapping[str, ScanCheck],
    journal: CheckJournal | None,
) -> list[ScanCheck]:
    """The check of each candidate; one of `known` that still holds is not made again."""

    def inspect(each: Candidate) -> ScanCheck:
        name, earlier = each.id, known.get(each.id)
        check = inspect_scan(
            each.source, each.root, each.modality, thresholds, earlier, decisions.scans.get(name)
        )
        if journal and check is not earlier:
            journal.append(name, check)
        return check

    candidates, checks = discovery.candidates, []
    sizes = [discovery.size_bytes(each) for each in candidates]
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        progress("Inspecting scans", len(candidates), sum(sizes)) as bar,
    ):
        found = pool.map(inspect, candidates)
        for candidate, size, check in zip(candidates, sizes, found, strict=True):
            checks.append(check)
            name = candidate.id
            bar.advance(name, work=size, is_new=check is not known.get(name))
    return checks
