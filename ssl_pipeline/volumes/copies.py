"""Near-duplicates: scans that were made of one another, however the copy was changed.

Two scans are compared by their keypoints: those that look alike must also lie alike, shifted and
perhaps mirrored as a whole. Which pairs are compared at all is found by hashing, for nobody can
compare all of them: keypoints whose description falls on the same side of many random planes are
neighbours (Charikar 2002, doi:10.1145/509907.509965), and scans that are neighbours often enough
are suspects.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ssl_pipeline.progress import progress
from ssl_pipeline.volumes.keypoints import WORDS, Keypoints

ALIKE = 0.75  # correlation of descriptions
OFF_STEPS = 0.75  # by which a match may miss its place
FEWEST = 8  # matches, for chance brings a few
RIM_STEPS = 2  # keypoints so near to the edge of what both show are not expected in both
TABLES, PLANES = 24, 28
CROWD = 64  # neighbours of which each knows the next alone: a chain is enough for copies
HITS = 3  # times that two scans must be neighbours
CLOSEST = 10  # suspects of a scan
WORKERS = min(4, os.cpu_count() or 1)
NOTHING: NDArray[np.int64] = np.empty(0, np.int64)

FLIPS = range(8)
_WORD = np.arange(WORDS)
_FLIPPED = np.stack([_WORD ^ (flip * 8 + flip) for flip in FLIPS])  # the words of a mirrored scan
_SIDE = np.stack([np.where(_WORD >> 3 & bit, 1.0, -1.0) for bit in (4, 2, 1)], 1).astype(np.float32)
_WAY = np.array([[-1.0 if flip & bit else 1.0 for bit in (4, 2, 1)] for flip in FLIPS])


class Likeness(NamedTuple):
    """How far two scans show the same: the higher the score, the more alike.

    Few matches may be a large share of few keypoints by chance, and many a small share of many
    where anatomy is alike: the score is share * sqrt(matches), in which copies are well above both.
    """

    score: float = 0.0
    share: float = 0.0  # of the keypoints that could be in both
    matches: int = 0


def near_duplicates(all_scans: Sequence[Keypoints], least: float) -> list[tuple[int, int]]:
    """The pairs of scans whose likeness has at least this score, by their numbers."""
    found = []
    with threadpool_limits(1), ThreadPoolExecutor(WORKERS) as pool:
        pairs = suspects(all_scans)
        likenesses = pool.map(lambda pair: likeness(*(all_scans[each] for each in pair)), pairs)
        with progress("Comparing scans that may be copies", len(pairs)) as bar:
            for pair, alike in zip(pairs, likenesses, strict=True):
                if alike.score >= least:
                    found.append(pair)
                bar.advance()
    return found


def likeness(one: Keypoints, other: Keypoints) -> Likeness:
    """How alike two scans are, at the mirroring that suits them best.

    The share is of the keypoints that lie where both scans reach, by the scan that has fewer; it is
    0 where there are fewer than FEWEST matches.
    """
    steps = np.intersect1d(one.points["step"], other.points["step"])
    here, there = (each.points[np.isin(each.points["step"], steps)] for each in (one, other))
    if min(len(here), len(there)) < FEWEST:
        return Likeness()
    extents = np.array(one.extent_mm), np.array(other.extent_mm)
    alike = _words(there).T
    kinds = here[["step", "bright"]][:, None] == there[["step", "bright"]]
    words = _words(here)
    return max(
        _laid_over(
            here, there, flip, extents, np.where(kinds, words[:, _FLIPPED[flip]] @ alike, -1)
        )
        for flip in FLIPS
    )


def suspects(all_scans: Sequence[Keypoints]) -> list[tuple[int, int]]:
    """Pairs of scans that are worth comparing, by their numbers: each with its closest ones."""
    owner = np.repeat(np.arange(len(all_scans)), [len(each.points) for each in all_scans])
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((TABLES, WORDS, PLANES), np.float32)
    hits = times = NOTHING
    for table in planes:
        key = np.concatenate([NOTHING, *(_keys(each.points, table) for each in all_scans)])
        pairs = _neighbours(key, owner, len(all_scans))
        hits, place = np.unique(np.concatenate([hits, pairs]), return_inverse=True)
        weights = np.concatenate([times, np.ones(len(pairs), np.int64)])
        times = np.bincount(place, weights, len(hits)).astype(np.int64)
    often = times >= HITS
    return _closest(hits[often], times[often], len(all_scans))


def _keys(points: NDArray[Any], planes: NDArray[np.float32]) -> NDArray[np.int64]:
    """On which side of each plane each description lies, with the kind of its keypoint."""
    side = _upright(_words(points)) @ planes > 0
    kind = points["step"].astype(np.int64) * 2 + points["bright"]
    key: NDArray[np.int64] = side @ (1 << np.arange(PLANES)) + (kind << PLANES)
    return key


def _words(points: NDArray[Any]) -> NDArray[np.float32]:
    """Descriptions (n, WORDS) whose products are rank correlations (Spearman)."""
    centred = points["ranks"].astype(np.float32) - (WORDS - 1) / 2
    length: float = np.sqrt(WORDS * (WORDS**2 - 1) / 12)
    return np.asarray(centred / length, np.float32)


def _upright(words: NDArray[np.float32]) -> NDArray[np.float32]:
    """Descriptions mirrored so that mirrored ones become the same: the heavier side up."""
    flip = (words @ _SIDE < 0) @ np.array([4, 2, 1])
    return np.take_along_axis(words, _FLIPPED[flip], 1)


def _neighbours(key: NDArray[np.int64], owner: NDArray[np.int64], scans: int) -> NDArray[np.int64]:
    """For every two keypoints of one key and two scans: the pair, as lower * scans + higher."""
    order = np.argsort(key, kind="stable")
    key, owner = key[order], owner[order]
    _, size = np.unique(key, return_counts=True)
    crowd = np.repeat(size, size) > CROWD
    pairs = []
    for apart in range(1, min(CROWD, len(key))):
        same = key[apart:] == key[:-apart]
        if apart > 1:
            same &= ~crowd[apart:]
        if not same.any():
            break
        one, other = owner[apart:][same], owner[:-apart][same]
        two = one != other
        pairs.append(np.minimum(one, other)[two] * scans + np.maximum(one, other)[two])
    return np.concatenate([NOTHING, *pairs])


def _closest(
    pairs: NDArray[np.int64], times: NDArray[np.int64], scans: int
) -> list[tuple[int, int]]:
    """The pairs that are among the CLOSEST of one of their two, in order."""
    kept = np.zeros(len(pairs), bool)
    for side in (pairs // scans, pairs % scans):
        order = np.lexsort((pairs, -times, side))
        first = np.searchsorted(side[order], side[order])
        kept[order[np.arange(len(order)) - first < CLOSEST]] = True
    return [(int(pair) // scans, int(pair) % scans) for pair in pairs[kept]]


def _laid_over(
    here: NDArray[Any],
    there: NDArray[Any],
    flip: int,
    extents: tuple[NDArray[np.float64], NDArray[np.float64]],
    alike: NDArray[np.float32],
) -> Likeness:
    """Of one mirroring: the largest set of matches that one shift explains."""
    way, step = _WAY[flip], here["step"].astype(float)
    place = np.where(way < 0, extents[0] - here["place"], here["place"])
    match = alike.argmax(1)
    mutual = (alike.argmax(0)[match] == np.arange(len(here))) & (alike.max(1) > ALIKE)
    if mutual.sum() < FEWEST:
        return Likeness()
    shifts, off = there["place"][match[mutual]] - place[mutual], OFF_STEPS * step[mutual]
    apart = np.abs(shifts[:, None] - shifts).max(-1)
    agree = apart <= np.maximum(off[:, None], off)
    agree = agree[agree.sum(1).argmax()]
    shift = np.average(shifts[agree], axis=0, weights=off[agree] ** -2)
    matches = int((np.abs(shifts - shift).max(1) <= off).sum())
    if matches < FEWEST:
        return Likeness()
    expected = min(
        _within(place + shift, step, extents[1]),
        _within(there["place"] - shift, there["step"], extents[0]),
    )
    share = min(1.0, matches / max(expected, FEWEST))
    return Likeness(share * math.sqrt(matches), share, matches)


def _within(place: NDArray[np.float64], step: NDArray[Any], extent: NDArray[np.float64]) -> int:
    """How many keypoints lie well inside a scan of this extent."""
    rim = RIM_STEPS * step.astype(float)[:, None]
    return int(((place > rim) & (place < extent - rim)).all(1).sum())
