"""The queue of a review: which items readers are asked about, and in which order.

What is asked is drawn by salted codes and not by a counter, so the same study asks the same, a new
scan changes nothing for the others, and nobody can tell from an item or its place why it is asked:
a scan that quality control rejected stands between accepted ones, corrupted ones and repetitions.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ssl_pipeline.review.config import Review
from ssl_pipeline.review.log_entry import ItemKey, LogEntry, Question
from ssl_pipeline.volumes.inventory import USABLE, Scan
from ssl_pipeline.volumes.pseudonyms import Coder
from ssl_pipeline.volumes.review import REJECTED, pair_sha256

Origin = Literal["accepted", "repaired", "rejected", "unused", "copy", "planted"]


@dataclass(frozen=True)
class ReviewItem:
    """One question to readers."""

    code: str  # of the scan, two joined by a hyphen, or one that no scan has where it is planted
    question: Question
    scans: tuple[str, ...]  # those that are drawn: the scan, and the one that it may be a copy of
    content_sha256: str
    origin: Origin  # why it is asked; readers do not see it
    round: int = 0  # 1 where the same is asked again

    @property
    def key(self) -> ItemKey:
        """By which answers are found that belong to it; another content is another item."""
        return self.code, self.question, self.content_sha256, self.round


def build_queue(scans: Sequence[Scan], review: Review, code: Coder) -> tuple[ReviewItem, ...]:
    """All items that a study asks about. `code` makes salted codes."""
    readable = {scan.id: scan for scan in scans if scan.voxel_hash and scan.sha256}
    origins = {name: _automatic_quality(scan) for name, scan in readable.items()}
    accepted = [name for name in readable if origins[name] == "accepted"]
    asked = [name for name in readable if origins[name] in review.verdicts]
    asked += _draw(accepted, review.accepted_share * len(accepted), "accepted", code)
    first = [_scan_item(readable[name], origins[name]) for name in asked]
    copies = _copy_items(readable) if review.copies else []
    planted = _draw(accepted, review.planted_share * len(first), "planted", code)
    corrupted = [_planted_item(readable[name], code) for name in planted]
    again = set(_draw(asked, review.repeated_share * len(asked), "repeated", code))
    repeated = [replace(item, round=1) for item in first if item.code in again]
    return (*first, *copies, *corrupted, *repeated)


def awaiting(
    items: Iterable[ReviewItem], answers: Iterable[LogEntry], readers: int
) -> list[ReviewItem]:
    """The items that fewer than `readers` readers have answered; `answers` are those that stand."""
    answered = _readers_by_item(answers)
    return [item for item in items if len(answered.get(item.key, ())) < readers]


def open_items(
    items: Iterable[ReviewItem],
    answers: Iterable[LogEntry],
    readers: int,
    reader: str,
    code: Coder,
) -> list[ReviewItem]:
    """The items that await this reader, in the reader's own order, which no item's origin tells.

    A repetition comes after the first time.
    """
    answers = list(answers)
    answered = _readers_by_item(answers)
    places = {item.key: code("order", reader, *map(str, item.key)) for item in items}

    def place(item: ReviewItem) -> str:
        other = replace(item, round=1 - item.round).key
        both = sorted((places[item.key], places.get(other, places[item.key])))
        return both[item.round]

    waiting = awaiting(items, answers, readers)
    own = [item for item in waiting if reader not in answered.get(item.key, ())]
    return sorted(own, key=place)


def _automatic_quality(scan: Scan) -> Origin:
    """What quality control found, whatever readers said; "unused" where they can change nothing."""
    if scan.review or (scan.fault and not scan.fault.startswith(REJECTED)):
        return "rejected"
    if scan.quality not in USABLE and not scan.fault:
        return "unused"  # such as a copy of equal voxels
    return "repaired" if scan.repair else "accepted"


def _scan_item(scan: Scan, origin: Origin) -> ReviewItem:
    return ReviewItem(scan.id, "usable", (scan.id,), scan.sha256, origin)


def _copy_items(scans: Mapping[str, Scan]) -> list[ReviewItem]:
    """The pairs of a suspected copy and its original."""
    pairs = [(scan, scans[scan.copy_of]) for scan in scans.values() if scan.copy_of in scans]
    return [
        ReviewItem(
            f"{scan.id}-{original.id}",
            "same_subject",
            (scan.id, original.id),
            pair_sha256((scan.sha256, original.sha256)),
            "copy",
        )
        for scan, original in pairs
    ]


def _planted_item(scan: Scan, code: Coder) -> ReviewItem:
    return ReviewItem(code("planted", scan.id), "usable", (scan.id,), scan.sha256, "planted")


def _draw(names: Sequence[str], count: float, purpose: str, code: Coder) -> list[str]:
    """So many of these, rounded up: a few more names change few of those that are drawn."""
    return sorted(names, key=lambda name: code(purpose, name))[: math.ceil(count)]


def _readers_by_item(answers: Iterable[LogEntry]) -> dict[ItemKey, set[str]]:
    readers: dict[ItemKey, set[str]] = {}
    for entry in answers:
        readers.setdefault(entry.key, set()).add(entry.reader)
    return readers
