"""Agreement of readers with each other, with themselves, and with what is known of planted items.

Agreement is Cohen's kappa (doi:10.1177/001316446002000104) with the large-sample standard error of
Fleiss, Cohen and Everitt (doi:10.1037/h0028106), whose interval is symmetric by Fisher's
transformation (doi:10.2307/2331838): with few items kappa itself is skewed. Shares have Wilson
intervals (doi:10.1080/01621459.1927.10502953).
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import atanh, sqrt, tanh
from typing import Literal, NamedTuple

import numpy as np
import scipy

from ssl_pipeline.io.records import Record, RecordPart
from ssl_pipeline.review.log_entry import LogEntry
from ssl_pipeline.review.queue import ReviewItem

SUMMARY_FILE = "readers.json"
ANSWERS = ("accept", "reject", "unsure")
CONFIDENCE = 0.95


class ReaderEstimate(NamedTuple):
    """A value with its interval of CONFIDENCE, of `items` items; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    items: int


class PairAgreement(RecordPart):
    """Cohen's kappa of two readers, or of one with the same reader's repetitions."""

    readers: tuple[str, str]
    kappa: ReaderEstimate


class ReaderSummary(RecordPart):
    """One reader's work: how many answers, which share accepts, which planted items were found."""

    reader: str
    answers: int
    accepted: ReaderEstimate  # of items that were not planted
    planted_rejected: ReaderEstimate  # sensitivity: a reader who always accepts has 0
    median_dwell_s: float


class ReviewSummary(Record):
    """What is to be said of a review's readers."""

    format: Literal[1] = 1
    items: int
    anchor: str  # of the log, by which a later log is known to go on from this one
    readers: tuple[ReaderSummary, ...]
    agreement: tuple[PairAgreement, ...]


def summarise_review(
    items: Sequence[ReviewItem], answers: Sequence[LogEntry], anchor: str
) -> ReviewSummary:
    """Summarise the answers that stand on the items of a queue."""
    by_key = {item.key: item for item in items}
    known = [(by_key[each.key], each) for each in answers if each.key in by_key]
    readers = sorted({each.reader for _, each in known})
    given = {
        (reader, number): {
            item.key[:3]: each.answer
            for item, each in known
            if each.reader == reader and item.round == number and item.origin != "planted"
        }
        for reader in readers
        for number in (0, 1)
    }
    pairs = [((a, 0), (b, 0)) for a, b in combinations(readers, 2)]
    pairs += [((reader, 0), (reader, 1)) for reader in readers]
    agreement = []
    for first, second in pairs:
        both = sorted(given[first].keys() & given[second].keys())
        if both:
            answers_of = [(given[first][key], given[second][key]) for key in both]
            agreement.append(
                PairAgreement(readers=(first[0], second[0]), kappa=cohen_kappa(answers_of))
            )
    return ReviewSummary(
        items=len(items),
        anchor=anchor,
        readers=tuple(_summary_of(reader, known) for reader in readers),
        agreement=tuple(agreement),
    )


def cohen_kappa(pairs: Iterable[tuple[str, str]]) -> ReaderEstimate:
    """Cohen's kappa of two readers' answers, a pair an item; undefined where all are the same."""
    table = np.zeros((len(ANSWERS), len(ANSWERS)))
    for first, second in pairs:
        table[ANSWERS.index(first), ANSWERS.index(second)] += 1
    count = int(table.sum())
    share = table / max(count, 1)
    rows, columns = share.sum(1), share.sum(0)
    observed, chance = float(np.trace(table)) / max(count, 1), float(rows @ columns)
    if count == 0 or chance == 1:
        return ReaderEstimate(None, None, None, count)
    kappa = (observed - chance) / (1 - chance)
    sums = columns[:, None] + rows[None, :]
    terms = np.where(np.eye(len(ANSWERS)), 1 - sums * (1 - kappa), sums * (1 - kappa)) ** 2
    excess = (kappa - chance * (1 - kappa)) ** 2
    variance = (float((share * terms).sum()) - excess) / (count * (1 - chance) ** 2)
    low, high = _kappa_interval(kappa, sqrt(max(variance, 0.0)))
    return ReaderEstimate(kappa, low, high, count)


def _kappa_interval(kappa: float, error: float) -> tuple[float, float]:
    if abs(kappa) >= 1:
        return kappa, kappa
    half = _z() * error / (1 - kappa**2)
    return tanh(atanh(kappa) - half), tanh(atanh(kappa) + half)


def wilson_interval(hits: int, count: int) -> ReaderEstimate:
    """A share with Wilson's interval."""
    if count == 0:
        return ReaderEstimate(None, None, None, 0)
    share, z2 = hits / count, _z() ** 2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _z() / (1 + z2 / count) * sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return ReaderEstimate(share, max(middle - half, 0.0), min(middle + half, 1.0), count)


def _summary_of(reader: str, known: Sequence[tuple[ReviewItem, LogEntry]]) -> ReaderSummary:
    own = [(item, each) for item, each in known if each.reader == reader]
    planted = [each.answer for item, each in own if item.origin == "planted"]
    others = [each.answer for item, each in own if item.origin != "planted"]
    return ReaderSummary(
        reader=reader,
        answers=len(own),
        accepted=wilson_interval(others.count("accept"), len(others)),
        planted_rejected=wilson_interval(planted.count("reject"), len(planted)),
        median_dwell_s=float(np.median([each.dwell_s for _, each in own])),
    )


def _z() -> float:
    return float(scipy.stats.norm.ppf((1 + CONFIDENCE) / 2))
