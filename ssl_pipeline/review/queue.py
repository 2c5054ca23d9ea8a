"""The queue of a review: which items readers are asked about, and in which order.

What is asked is drawn by salted codes and not by a counter, so the same study asks the same, a new
scan changes nothing for the others, and nobody can tell from an item or its place why it is asked:
a scan that quality control rejected stands between accepted ones, corrupted ones and repetitions.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from ssl_pipeline.review.config import Review
from ssl_pipeline.review.log_entry import ItemKey, LogEntry, Question
from ssl_pipeline.review.predictions import ReviewedPrediction
from ssl_pipeline.volumes.inventory import USABLE, Scan
from ssl_pipeline.volumes.pseudonyms import Coder
from ssl_pipeline.volumes.review import REJECTED, label_item, pair_sha256, prediction_item

Origin = Literal[
    "accepted", "repaired", "rejected", "unused", "copy", "merged",
    "fitting_label", "empty_label", "off_grid_label", "prediction", "planted",
]  # fmt: skip
LABEL_ORIGINS: Mapping[str, Origin] = MappingProxyType(
    {"fits": "fitting_label", "empty": "empty_label", "off_grid": "off_grid_label"}
)


class OverlaidScan(NamedTuple):
    """A scan as it is shown, with the label or the prediction that is asked about."""

    scan: str
    label: str = ""  # its name; where there is none, all that fit may lie over the scan
    prediction: ReviewedPrediction | None = None


@dataclass(frozen=True)
class ReviewItem:
    """One question to readers."""

    # of the scan, two joined by a hyphen, of a scan and its label or prediction, or one that no
    # scan has where it is planted
    code: str
    question: Question
    scans: tuple[str, ...]  # those that are drawn: the scan, and the one that it is compared with
    content_sha256: str
    origin: Origin  # why it is asked; readers do not see it
    round: int = 0  # 1 where the same is asked again
    label: str = ""  # the name of a label that is asked about
    prediction: ReviewedPrediction | None = None  # that is asked about

    @property
    def images(self) -> tuple[OverlaidScan, ...]:
        """What is drawn."""
        return tuple(OverlaidScan(scan, self.label, self.prediction) for scan in self.scans)

    @property
    def key(self) -> ItemKey:
        """By which answers are found that belong to it; another content is another item."""
        return self.code, self.question, self.content_sha256, self.round


def build_queue(
    scans: Sequence[Scan],
    review: Review,
    code: Coder,
    predictions: Sequence[ReviewedPrediction] = (),
) -> tuple[ReviewItem, ...]:
    """All items that a study asks about. `code` makes salted codes.

    `predictions` come with those first of which the model is least certain.
    """
    readable = {scan.id: scan for scan in scans if scan.voxel_hash and scan.sha256}
    origins = {name: _automatic_quality(scan) for name, scan in readable.items()}
    items = [_scan_item(scan, origins[name]) for name, scan in readable.items()]
    accepted = [item for item in items if item.origin == "accepted"]
    questions = [item for item in items if item.origin in review.verdicts]
    questions += _draw(accepted, review.accepted_share * len(accepted), "accepted", code)
    queue = _with_controls(questions, accepted, review, code)
    queue += _pair_items(readable, review)
    if review.labels:
        queue += _label_questions(readable, origins, review, code)
    if review.predictions:
        usable = [each for each in predictions if origins.get(each.scan) in USABLE]
        found = [_prediction_item(readable[each.scan], each, code) for each in usable]
        drawn = [item for item, each in zip(found, usable, strict=True) if not each.is_empty]
        queue += _with_controls(found[: review.predictions.count], drawn, review, code)
    return tuple(queue)


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


def _with_controls(
    questions: Sequence[ReviewItem],
    plantable: Sequence[ReviewItem],
    review: Review,
    code: Coder,
) -> list[ReviewItem]:
    """The questions, with planted ones, made of `plantable`, and repetitions."""
    planted = _draw(plantable, review.planted_share * len(questions), "planted", code)
    again = _draw(questions, review.repeated_share * len(questions), "repeated", code)
    return [
        *questions,
        *(replace(item, code=code("planted", item.code), origin="planted") for item in planted),
        *(replace(item, round=1) for item in again),
    ]


def _scan_item(scan: Scan, origin: Origin) -> ReviewItem:
    return ReviewItem(scan.id, "usable", (scan.id,), scan.sha256, origin)


def _pair_items(scans: Mapping[str, Scan], review: Review) -> list[ReviewItem]:
    """Pairs of a suspected copy and its original, and of two names that one visit joins."""
    pairs: dict[tuple[str, str], Origin] = {}
    for scan in scans.values():
        if review.merged_subjects and scan.visit_of in scans:
            pairs[scan.id, scan.visit_of] = "merged"
        if review.copies and scan.copy_of in scans:
            pairs[scan.id, scan.copy_of] = "copy"
    return [
        ReviewItem(
            "-".join(pair),
            "same_subject",
            pair,
            pair_sha256(scans[name].sha256 for name in pair),
            origin,
        )
        for pair, origin in pairs.items()
    ]


def _label_questions(
    scans: Mapping[str, Scan], origins: Mapping[str, Origin], review: Review, code: Coder
) -> list[ReviewItem]:
    """The labels in doubt and a share of those that fit.

    No others are drawn once a reader has lifted the rejection of a scan.
    """
    items = [
        _label_item(scan, name, code)
        for scan in scans.values()
        if origins[scan.id] != "unused"
        for name in scan.label_checks
    ]
    fitting = [
        item
        for item in items
        if item.origin == "fitting_label" and origins[item.scans[0]] != "rejected"
    ]
    questions = [item for item in items if item.origin != "fitting_label"]
    questions += _draw(fitting, review.accepted_share * len(fitting), "accepted", code)
    return _with_controls(questions, fitting, review, code)


def _label_item(scan: Scan, name: str, code: Coder) -> ReviewItem:
    check = scan.label_checks[name]
    return ReviewItem(
        label_item(scan.id, name, code),
        "label_fits",
        (scan.id,),
        pair_sha256((scan.sha256, check["sha256"])),
        LABEL_ORIGINS[check["verdict"]],
        label=name,
    )


def _prediction_item(scan: Scan, prediction: ReviewedPrediction, code: Coder) -> ReviewItem:
    return ReviewItem(
        prediction_item(scan.id, prediction.sha256, code),
        "prediction_correct",
        (scan.id,),
        pair_sha256((scan.sha256, prediction.sha256)),
        "prediction",
        prediction=prediction,
    )


def _draw(items: Sequence[ReviewItem], count: float, purpose: str, code: Coder) -> list[ReviewItem]:
    """So many of these, rounded up: a few more items change few of those that are drawn."""
    return sorted(items, key=lambda item: code(purpose, item.code))[: math.ceil(count)]


def _readers_by_item(answers: Iterable[LogEntry]) -> dict[ItemKey, set[str]]:
    readers: dict[ItemKey, set[str]] = {}
    for entry in answers:
        readers.setdefault(entry.key, set()).add(entry.reader)
    return readers
