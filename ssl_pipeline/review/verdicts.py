"""From the log to what counts: the answers that stand, and the decisions that they make."""

from collections.abc import Iterable
from typing import Literal

from ssl_pipeline.review.log_entry import LogEntry, Question
from ssl_pipeline.volumes.review import Decision, Decisions


def standing_answers(entries: Iterable[LogEntry]) -> tuple[LogEntry, ...]:
    """The last answer of each reader on each item and round, in the log's order.

    One that its reader took back does not stand.
    """
    last: dict[tuple[str, str, str, int], LogEntry] = {}
    for entry in entries:
        key = (entry.reader, entry.question, entry.item, entry.round)
        last.pop(key, None)
        if entry.answer != "withdraw":
            last[key] = entry
    return tuple(last.values())


def decisions_of(entries: Iterable[LogEntry]) -> Decisions:
    """What the readers decided: of several answers on an item the last that is not "unsure".

    Items that are no scans of the study, such as planted ones, have codes that no scan has.
    """
    pairs: dict[frozenset[str], str] = {}
    decided: dict[Question, dict[str, Decision]] = {
        "usable": {}, "label_fits": {}, "prediction_correct": {},
    }  # fmt: skip
    for entry in standing_answers(entries):
        if entry.answer == "unsure":
            continue
        if entry.question != "same_subject":
            decided[entry.question][entry.item] = _decision(entry)
        elif entry.answer == "reject":
            pairs[_pair(entry)] = entry.content_sha256
        else:
            pairs.pop(_pair(entry), None)
    return Decisions(decided["usable"], pairs, decided["label_fits"], decided["prediction_correct"])


def _decision(entry: LogEntry) -> Decision:
    reason = ", ".join(code.replace("_", " ") for code in entry.codes)
    verdict: Literal["accept", "reject"] = "accept" if entry.answer == "accept" else "reject"
    return Decision(verdict, reason, entry.reader, entry.content_sha256)


def _pair(entry: LogEntry) -> frozenset[str]:
    return frozenset(entry.item.split("-"))
