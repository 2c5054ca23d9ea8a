"""Near-duplicate search: pairs of scans of which one was made from the other.

Two scans are compared by their keypoints: those with similar descriptors must also have similar
positions, up to one shift and mirroring of the whole. Which pairs are compared at all is found by
hashing, because comparing all of them is not feasible: keypoints whose description falls on the
same side of many random planes are neighbours (Charikar 2002, doi:10.1145/509907.509965), and scans
that are neighbours often enough are candidates. Scans of one subject, such as the frames of a
heart, are no candidates: they would crowd out the copy under another name.
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
from ssl_pipeline.volumes.duplicates.keypoints import DESCRIPTOR_SIZE, Keypoints

MIN_CORRELATION = 0.75  # rank correlation of descriptors
MAX_OFFSET_STEPS = 0.75  # by which a match may miss its position
MIN_MATCHES = 8  # matches; chance brings a few
MARGIN_STEPS = 2  # keypoints so near to the edge of what both show are not expected in both
HASH_TABLES, HASH_PLANES = 24, 28
MAX_BUCKET_SIZE = 64  # neighbours of which each knows the next alone: a chain is enough for copies
MIN_HASH_HITS = 3  # times that two scans must be neighbours
MAX_CANDIDATES = 10  # candidate pairs of a scan
WORKERS = min(4, os.cpu_count() or 1)
NO_PAIRS: NDArray[np.int64] = np.empty(0, np.int64)

FLIPS = range(8)
_INDEX = np.arange(DESCRIPTOR_SIZE)
_FLIPPED = np.stack(
    [_INDEX ^ (flip * 8 + flip) for flip in FLIPS]
)  # descriptors of a mirrored scan
_SIDE = np.stack([np.where(_INDEX >> 3 & bit, 1.0, -1.0) for bit in (4, 2, 1)], 1).astype(
    np.float32
)
_DIRECTION = np.array([[-1.0 if flip & bit else 1.0 for bit in (4, 2, 1)] for flip in FLIPS])


class Similarity(NamedTuple):
    """Similarity of two scans: the higher the score, the more similar.

    Few matches may be a large share of few keypoints by chance, and many a small share of many
    where anatomy is similar: the score is share * sqrt(matches), and copies are well above both.
    """

    score: float = 0.0
    share: float = 0.0  # of the keypoints that could be in both
    matches: int = 0


def find_near_duplicates(
    all_scans: Sequence[Keypoints], threshold: float, subjects: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """The pairs of scans with at least this similarity score, by position.

    `subjects` has the known subject of each scan, "" where it is not known; two scans of one are
    no pair.
    """
    found = []
    with threadpool_limits(1), ThreadPoolExecutor(WORKERS) as pool:
        pairs = candidate_pairs(all_scans, subjects)
        similarities = pool.map(lambda pair: similarity(*(all_scans[each] for each in pair)), pairs)
        with progress("Comparing possible duplicates", len(pairs)) as bar:
            for pair, found_similarity in zip(pairs, similarities, strict=True):
                if found_similarity.score >= threshold:
                    found.append(pair)
                bar.advance()
    return found


def similarity(first: Keypoints, second: Keypoints) -> Similarity:
    """The similarity of two scans, at the mirroring that fits best.

    The share is of the keypoints that lie where both scans reach, by the scan that has fewer; it is
    0 where there are fewer than MIN_MATCHES matches.
    """
    steps = np.intersect1d(first.points["step"], second.points["step"])
    here, there = (each.points[np.isin(each.points["step"], steps)] for each in (first, second))
    if min(len(here), len(there)) < MIN_MATCHES:
        return Similarity()
    extents = np.array(first.extent_mm), np.array(second.extent_mm)
    second_descriptors = _descriptors(there).T
    kinds = here[["step", "bright"]][:, None] == there[["step", "bright"]]
    descriptors = _descriptors(here)
    return max(
        _register(
            here,
            there,
            flip,
            extents,
            np.where(kinds, descriptors[:, _FLIPPED[flip]] @ second_descriptors, -1),
        )
        for flip in FLIPS
    )


def candidate_pairs(
    all_scans: Sequence[Keypoints], subjects: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """Pairs of scans that are worth comparing, by position: each scan with its closest ones.

    Two scans of one of `subjects`, as `find_near_duplicates` takes them, are no pair.
    """
    first: dict[str, int] = {}
    names = subjects or [""] * len(all_scans)
    subject = np.array([first.setdefault(n, at) if n else at for at, n in enumerate(names)], int)
    owner = np.repeat(np.arange(len(all_scans)), [len(each.points) for each in all_scans])
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((HASH_TABLES, DESCRIPTOR_SIZE, HASH_PLANES), np.float32)
    hits = times = NO_PAIRS
    for table in planes:
        key = np.concatenate([NO_PAIRS, *(_hash_keys(each.points, table) for each in all_scans)])
        pairs = _neighbours(key, owner, subject)
        hits, place = np.unique(np.concatenate([hits, pairs]), return_inverse=True)
        weights = np.concatenate([times, np.ones(len(pairs), np.int64)])
        times = np.bincount(place, weights, len(hits)).astype(np.int64)
    often = times >= MIN_HASH_HITS
    return _closest_pairs(hits[often], times[often], len(all_scans))


def _hash_keys(points: NDArray[Any], planes: NDArray[np.float32]) -> NDArray[np.int64]:
    """On which side of each plane each descriptor lies, with the kind of its keypoint."""
    side = _mirror_invariant(_descriptors(points)) @ planes > 0
    kind = points["step"].astype(np.int64) * 2 + points["bright"]
    key: NDArray[np.int64] = side @ (1 << np.arange(HASH_PLANES)) + (kind << HASH_PLANES)
    return key


def _descriptors(points: NDArray[Any]) -> NDArray[np.float32]:
    """Descriptors (n, DESCRIPTOR_SIZE) whose products are rank correlations (Spearman)."""
    centred = points["ranks"].astype(np.float32) - (DESCRIPTOR_SIZE - 1) / 2
    length: float = np.sqrt(DESCRIPTOR_SIZE * (DESCRIPTOR_SIZE**2 - 1) / 12)
    return np.asarray(centred / length, np.float32)


def _mirror_invariant(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Descriptors mirrored so that mirrored ones become the same: the heavier side up."""
    flip = (descriptors @ _SIDE < 0) @ np.array([4, 2, 1])
    return np.take_along_axis(descriptors, _FLIPPED[flip], 1)


def _neighbours(
    key: NDArray[np.int64], owner: NDArray[np.int64], subject: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For every two keypoints of one key and two scans: the pair, as lower * scans + higher.

    `owner` has the scan of each keypoint, `subject` a number of the person of each scan.
    """
    order = np.argsort(key, kind="stable")
    key, owner = key[order], owner[order]
    _, size = np.unique(key, return_counts=True)
    crowd = np.repeat(size, size) > MAX_BUCKET_SIZE
    pairs, scans = [], len(subject)
    for apart in range(1, min(MAX_BUCKET_SIZE, len(key))):
        same = key[apart:] == key[:-apart]
        if apart > 1:
            same &= ~crowd[apart:]
        if not same.any():
            break
        one, other = owner[apart:][same], owner[:-apart][same]
        two = subject[one] != subject[other]
        pairs.append(np.minimum(one, other)[two] * scans + np.maximum(one, other)[two])
    return np.concatenate([NO_PAIRS, *pairs])


def _closest_pairs(
    pairs: NDArray[np.int64], hits: NDArray[np.int64], scans: int
) -> list[tuple[int, int]]:
    """The pairs that are among the MAX_CANDIDATES closest of one of their two, in order."""
    kept = np.zeros(len(pairs), bool)
    for side in (pairs // scans, pairs % scans):
        order = np.lexsort((pairs, -hits, side))
        first = np.searchsorted(side[order], side[order])
        kept[order[np.arange(len(order)) - first < MAX_CANDIDATES]] = True
    return [(int(pair) // scans, int(pair) % scans) for pair in pairs[kept]]


def _register(
    first: NDArray[Any],
    second: NDArray[Any],
    flip: int,
    extents: tuple[NDArray[np.float64], NDArray[np.float64]],
    correlations: NDArray[np.float32],
) -> Similarity:
    """Similarity at one mirroring: the largest set of matches that one shift explains."""
    way, step = _DIRECTION[flip], first["step"].astype(float)
    place = np.where(way < 0, extents[0] - first["position"], first["position"])
    match = correlations.argmax(1)
    mutual = (correlations.argmax(0)[match] == np.arange(len(first))) & (
        correlations.max(1) > MIN_CORRELATION
    )
    if mutual.sum() < MIN_MATCHES:
        return Similarity()
    shifts, off = second["position"][match[mutual]] - place[mutual], MAX_OFFSET_STEPS * step[mutual]
    apart = np.abs(shifts[:, None] - shifts).max(-1)
    agree = apart <= np.maximum(off[:, None], off)
    agree = agree[agree.sum(1).argmax()]
    shift = np.average(shifts[agree], axis=0, weights=off[agree] ** -2)
    matches = int((np.abs(shifts - shift).max(1) <= off).sum())
    if matches < MIN_MATCHES:
        return Similarity()
    expected = min(
        _count_inside(place + shift, step, extents[1]),
        _count_inside(second["position"] - shift, second["step"], extents[0]),
    )
    share = min(1.0, matches / max(expected, MIN_MATCHES))
    return Similarity(share * math.sqrt(matches), share, matches)


def _count_inside(
    positions: NDArray[np.float64], step: NDArray[Any], extent: NDArray[np.float64]
) -> int:
    """How many keypoints lie well inside a scan of this extent."""
    rim = MARGIN_STEPS * step.astype(float)[:, None]
    return int(((positions > rim) & (positions < extent - rim)).all(1).sum())
