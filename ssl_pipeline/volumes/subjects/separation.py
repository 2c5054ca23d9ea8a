"""Subjects that come apart: the scan, or the setting, that joined two names of one person is gone.

Names are joined by what their scans share. Who deletes or excludes a copy takes the join with it,
and the two may then be on both sides of a split.
"""

from collections.abc import Iterator

from ssl_pipeline.volumes.inventory import Inventory, Scan


def separated_subjects(before: Inventory, now: Inventory) -> Iterator[tuple[Scan, Scan]]:
    """A scan of each split that a subject of an earlier inventory is in now, beside its first one.

    Subjects that lie in one split are left out, for they leak nothing.
    """
    subject_before = {scan.id: scan.subject for scan in before.scans if scan.subject}
    first: dict[str, Scan] = {}
    seen: set[tuple[str, str]] = set()
    for scan in now.accepted_scans:
        subject = subject_before.get(scan.id)
        if subject is None:
            continue
        start = first.setdefault(subject, scan)
        if scan.split != start.split and (subject, scan.split) not in seen:
            seen.add((subject, scan.split))
            yield start, scan
