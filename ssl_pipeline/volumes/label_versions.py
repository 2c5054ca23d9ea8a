"""Versions of labels: a table of every change of a label, in the private folder.

A JSON object a line, which names scans by their codes and readers by theirs. Lines are only ever
added. One that was torn by a kill does not count: the inventory that is run again adds it.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.permissions import private_files
from ssl_pipeline.io.records import Record
from ssl_pipeline.volumes.inventory import USABLE, Inventory, Scan
from ssl_pipeline.volumes.label_matching import LabelKind

VERSIONS_FILE = "label_versions.jsonl"


class LabelVersion(Record):
    """A change of a scan's label, its kind or reader, as an inventory saw it."""

    format: Literal[1] = 1
    recorded_at: AwareDatetime  # UTC, the same for all changes of one inventory
    scan: str  # its code
    label: str
    before: str  # SHA-256 of its file; empty where there was none
    after: str  # the same as before where only kind or reader changed
    kind: LabelKind
    reader: str  # the short code of whose it is; empty where nobody signed

    @property
    def change(self) -> tuple[str, str, LabelKind, str]:
        """What changed, whatever the time."""
        return self.before, self.after, self.kind, self.reader


def read_label_versions(path: Path) -> list[LabelVersion]:
    """All changes in their order; none where there is no table yet."""
    return list(_lines(path)) if path.exists() else []


def _lines(path: Path) -> Iterator[LabelVersion]:
    for text in path.read_bytes().splitlines():
        try:
            yield LabelVersion.model_validate_json(text)
        except ValidationError:  # torn, or empty
            continue


def record_label_changes(path: Path, previous: Inventory, now: Inventory) -> list[LabelVersion]:
    """Add what has changed between two inventories to the table, and return it.

    Labels of scans that are new, or could not be used before, have no earlier version. A change
    that an inventory has added before it was killed is not added again.
    """
    latest = {(each.scan, each.label): each.change for each in read_label_versions(path)}
    changes = list(_changes(previous, now))
    new = [each for each in changes if latest.get((each.scan, each.label)) != each.change]
    if new:
        # A line begins with its break, so that it is whole also behind one that was torn.
        content = b"".join(b"\n" + each.model_dump_json().encode() for each in new)
        with private_files(), open(path, "ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return changes


def _changes(previous: Inventory, now: Inventory) -> Iterator[LabelVersion]:
    recorded_at = datetime.now(UTC)
    earlier = {scan.id: scan.label_versions for scan in previous.scans if _has_checks(scan)}
    for scan in filter(_has_checks, now.scans):
        before, after = earlier.get(scan.id, scan.label_versions), scan.label_versions
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name, {}), after.get(name, {})
            if any(old.get(key) != new.get(key) for key in ("sha256", "kind", "reader")):
                yield LabelVersion(
                    recorded_at=recorded_at,
                    scan=scan.id,
                    label=name,
                    before=old.get("sha256", ""),
                    after=new.get("sha256", ""),
                    kind=(new or old)["kind"],
                    reader=new.get("reader", ""),
                )


def _has_checks(scan: Scan) -> bool:
    """Whether the labels of a scan were looked at, as those of one that cannot be used are not."""
    return scan.quality in USABLE or bool(scan.label_checks)


def describe_label_changes(changes: Sequence[LabelVersion]) -> str:
    """How many labels the last inventory to see any found changed, and whose they are.

    `changes` are those of one or more inventories, in their order. A sentence without a full stop;
    empty where there are none.
    """
    last = [each for each in changes if each.recorded_at == changes[-1].recorded_at]
    if not last:
        return ""
    counts = Counter(each.reader for each in last)
    readers = sorted(counts.keys() - {""})
    whose = [f"{counts[reader]:,} by {reader}" for reader in readers]
    whose += [f"{counts['']:,} unsigned"] if counts[""] else []
    labels, day = format_count(len(last), "label"), last[0].recorded_at.date()
    return (
        f"At the inventory of {day}, {labels} had changed since the one before ({', '.join(whose)})"
    )
