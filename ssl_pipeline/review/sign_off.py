"""What a review's sign-off states: the items, what was decided on them, and by whom.

Everything is said in codes, of items and of readers; times are those of answers.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import NamedTuple

from ssl_pipeline.review.agreement import ReviewSummary, summarise_review
from ssl_pipeline.review.audit_log import anchor_of
from ssl_pipeline.review.log_entry import LogEntry, Question
from ssl_pipeline.review.queue import Origin, ReviewItem, awaiting
from ssl_pipeline.review.verdicts import standing_answers

OVERRIDDEN_BY = {
    **dict.fromkeys(("accepted", "repaired", "copy", "merged"), "reject"),
    **dict.fromkeys(("fitting_label", "empty_label", "prediction"), "reject"),
    **dict.fromkeys(("rejected", "off_grid_label"), "accept"),
}
_ItemContent = tuple[str, Question, str]  # an item whatever the round: code, question, hash


class ItemCount(NamedTuple):
    """The items of one question and one reason to ask it."""

    question: Question
    origin: Origin
    repeated: bool
    items: int
    accepted: int
    rejected: int
    undecided: int  # answered by nobody, or unsure alone


@dataclass(frozen=True)
class Override:
    """A decision of a reader against what the software, or a model, had found."""

    item: str
    software_verdict: Origin  # what had been found
    answer: LogEntry


@dataclass(frozen=True)
class SignOff:
    """A review as it is signed; the log was verified when it was read."""

    study: str
    version: str  # of this software
    answers: int  # lines of the log
    last_sha256: str  # of its last line
    readers_per_item: int
    awaiting: int  # items that need another reader
    items: tuple[ItemCount, ...]
    overrides: tuple[Override, ...]
    readers: ReviewSummary
    created_at: datetime


def sign_off(
    study: str,
    items: Sequence[ReviewItem],
    entries: Sequence[LogEntry],
    readers_per_item: int,
    created_at: datetime,
) -> SignOff:
    """Gather what a sign-off states, from the queue and from all `entries` of a verified log."""
    answers = standing_answers(entries)
    verdicts = _verdicts(answers)
    anchor = anchor_of(entries)
    return SignOff(
        study=study,
        version=metadata.version("ssl-pipeline"),
        answers=len(entries),
        last_sha256=anchor.partition(":")[2],
        readers_per_item=readers_per_item,
        awaiting=len(awaiting(items, answers, readers_per_item)),
        items=tuple(_counts(items, answers)),
        overrides=tuple(
            Override(item.code, item.origin, verdict)
            for item in items
            if item.round == 0
            and (verdict := verdicts.get(item.key[:3]))
            and verdict.answer == OVERRIDDEN_BY.get(item.origin)
        ),
        readers=summarise_review(items, answers, anchor),
        created_at=created_at,
    )


def _verdicts(answers: Iterable[LogEntry]) -> Mapping[_ItemContent, LogEntry]:
    """The last answer on each item that decides."""
    return {each.key[:3]: each for each in answers if each.answer != "unsure"}


def _counts(items: Sequence[ReviewItem], answers: Iterable[LogEntry]) -> list[ItemCount]:
    """How many items there are of each kind, and what was decided on them, in the queue's order."""
    decided = {each.key: each.answer for each in answers if each.answer != "unsure"}
    groups: dict[tuple[Question, Origin, bool], list[str]] = defaultdict(list)
    for item in items:
        kind = (item.question, item.origin, bool(item.round))
        groups[kind].append(decided.get(item.key, ""))
    return [
        ItemCount(*kind, len(own), own.count("accept"), own.count("reject"), own.count(""))
        for kind, own in groups.items()
    ]
