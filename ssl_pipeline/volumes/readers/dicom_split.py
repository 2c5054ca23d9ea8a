"""Splitting of a DICOM series into volumes.

A UID alone is no identity, because anonymisers wipe UIDs or write one constant into every file:
what differs in patient, study, modality, number or frame of reference of the series is split first.

Scanners put several volumes into one series: the three planes of a localizer, echoes, phases of
contrast, b-values, time points. Images that differ in size, direction or echo are always split. Any
other attribute (acquisition, b-value, time, ...) is only used where images share a position or are
unevenly spaced, and only where it sorts them into stacks: an acquisition number or a time that
counts the slices of one good volume must not tear it up.

A series that would split into more than MAX_VOLUMES is a 4D one (fMRI, perfusion, cine): hundreds
of near copies of one moment, which would outweigh other patients, so it is left whole and refused.
Up to MAX_VOLUMES are echoes, phases or b-values, each of them a contrast worth learning from.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.volumes.readers.dicom_headers import IDENTITY, SPLIT_ATTRIBUTES, Frame
from ssl_pipeline.volumes.volume import SliceSpacing

MAX_VOLUMES = 8  # volumes into which a series is split
# slices of a stack that a hint must give, to be used where no position repeats
MIN_STACK_SLICES = 3
MAX_UNEVEN_SHARE = 0.1  # share of the slice distance by which the slices of a stack may be off
SAME_POSITION_MM = 0.01
MAX_SIDE_DIFFERENCE_MM = 1e-4  # sides of pixels that differ by less do so by rounding
MAX_COSINE_DIFFERENCE = 1e-3  # difference of direction cosines between slices that are not parallel

FrameKey = Callable[[Frame], object]
NamedFrames = tuple[str, list[Frame]]
SPLIT_HINTS: tuple[tuple[str, FrameKey], ...] = (
    ("type", lambda frame: frame.image_type),
    *((name, lambda frame, name=name: frame.split_values[name]) for name in SPLIT_ATTRIBUTES),
)


def split_series(frames: list[Frame]) -> dict[str, list[Frame]]:
    """The volumes among frames of one series UID, named by what differs; one may be named "".

    Copies of a frame stay with it. Frames without a position are a part of their own.
    """
    return {
        _join_names(name, more): volume
        for name, series in _split_by_keys(frames, _identity_keys(frames))
        for more, volume in _volumes_of(series).items()
    }


def _identity_keys(frames: list[Frame]) -> list[tuple[str, FrameKey]]:
    """The attributes that all images of one series share.

    One of which each image has a value of its own was replaced by an anonymiser, file by file.
    """

    def key_of(name: str) -> FrameKey:
        return lambda frame: frame.identity[name]

    return [
        (part, key_of(name))
        for name, part in IDENTITY.items()
        if len({frame.identity[name] for frame in frames}) < len(frames)
    ]


def _volumes_of(series: list[Frame]) -> dict[str, list[Frame]]:
    placed = [frame for frame in series if not frame.fault]
    lost = [frame for frame in series if frame.fault]
    found: dict[str, list[Frame]] = {"unplaced" if placed else "": lost} if lost else {}
    for name, same_geometry in _split_by_geometry(placed):
        volumes = _split_by_hints(same_geometry, SPLIT_HINTS)
        if len(volumes) > MAX_VOLUMES:
            volumes = [("", same_geometry)]
        for more, volume in volumes:
            found[_join_names(name, more)] = volume
    return found


def unique_frames(frames: list[Frame]) -> list[Frame]:
    """The frames less those that are in another file, or the same one under another name, too.

    A UID that frames of several positions share is a constant, which makes nothing a copy.
    """
    positions: dict[tuple[str, int], set[tuple[float, ...]]] = {}
    for frame in frames:
        positions.setdefault((frame.uid, frame.number), set()).add(tuple(frame.position))
    kept: dict[object, Frame] = {}
    for frame in frames:
        is_own = frame.uid and len(positions[frame.uid, frame.number]) == 1
        details = (frame.image_type, *frame.split_values.values())
        key = (frame.uid if is_own else frame.path, frame.number, tuple(frame.position), details)
        kept.setdefault(key, frame)
    return list(kept.values())


def max_frames_per_position(frames: list[Frame]) -> int:
    """The largest number of images at one position."""
    places = (tuple(np.round(frame.position / SAME_POSITION_MM)) for frame in frames)
    return max(Counter(places).values())


def measure_slice_spacing(
    positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> SliceSpacing:
    """The spacing of at least two sorted slices at `positions` (n, 3), in mm."""
    gaps = np.diff(positions @ normal)
    even = np.linspace(positions[0], positions[-1], len(positions))
    off = float(np.linalg.norm(positions - even, axis=1).max())
    least, median, most = (float(of(gaps)) for of in (np.min, np.median, np.max))
    return SliceSpacing(least, median, most, off, _spacing_changes(gaps))


def _spacing_changes(gaps: NDArray[np.float64]) -> tuple[float, ...]:
    """The gap of each of several even stacks that follow one another; empty where it is not so."""
    tolerance = MAX_UNEVEN_SHARE * abs(float(np.median(gaps)))
    starts = np.flatnonzero(np.abs(np.diff(gaps)) > tolerance) + 1
    runs = np.split(gaps, starts)
    if len(runs) < 2 or min(map(len, runs)) < MIN_STACK_SLICES:
        return ()
    return tuple(float(np.median(run)) for run in runs)


def _split_by_geometry(frames: list[Frame]) -> list[NamedFrames]:
    """Frames split by attributes that no volume mixes."""
    if not frames:
        return []
    sides = _cluster_numbers(frames, lambda frame: np.array(frame.spacing), MAX_SIDE_DIFFERENCE_MM)
    directions = _cluster_numbers(frames, lambda frame: frame.cosines, MAX_COSINE_DIFFERENCE)
    natures: tuple[tuple[str, FrameKey], ...] = (
        ("size", lambda frame: (frame.size, sides[id(frame)])),
        ("direction", lambda frame: directions[id(frame)]),
        ("scout", lambda frame: "LOCALIZER" in frame.image_type),
        ("echo", lambda frame: frame.split_values["echo"]),
    )
    return _split_by_keys(frames, natures)


def _split_by_keys(frames: list[Frame], keys: Sequence[tuple[str, FrameKey]]) -> list[NamedFrames]:
    """Frames split by each key in turn, named by all that differ."""
    found: list[NamedFrames] = [("", frames)]
    for name, key in keys:
        found = [
            (_join_names(before, more), piece)
            for before, whole in found
            for more, piece in _split_by_key(whole, name, key)
        ]
    return found


def _cluster_numbers(
    frames: list[Frame], measure: Callable[[Frame], NDArray[np.float64]], tolerance: float
) -> dict[int, int]:
    """For each frame a number that it shares with all that are within `tolerance` of the first."""
    known: list[NDArray[np.float64]] = []
    numbers = {}
    for frame in frames:
        own = measure(frame)
        near = (n for n, each in enumerate(known) if np.abs(each - own).max() <= tolerance)
        number = next(near, len(known))
        if number == len(known):
            known.append(own)
        numbers[id(frame)] = number
    return numbers


def _split_by_hints(
    frames: list[Frame], hints: tuple[tuple[str, FrameKey], ...]
) -> list[NamedFrames]:
    """The stacks that the first hints to do so make of frames, or the frames as they are."""
    if not hints or _is_stack(frames):
        return [("", frames)]
    (name, key), *rest = hints
    pieces = _split_by_key(frames, name, key)
    if not _is_useful_split(frames, [piece for _, piece in pieces]):
        return _split_by_hints(frames, tuple(rest))
    return [
        (_join_names(label, more), volume)
        for label, piece in pieces
        for more, volume in _split_by_hints(piece, tuple(rest))
    ]


def _split_by_key(frames: list[Frame], name: str, key: FrameKey) -> list[NamedFrames]:
    """Frames by the value of a key, named by its rank; unnamed where all have the same."""
    groups: dict[object, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(key(frame), []).append(frame)
    if len(groups) == 1:
        return [("", frames)]
    ranked = sorted(groups, key=_rank)
    return [(f"{name}{number}", groups[value]) for number, value in enumerate(ranked, 1)]


def _join_names(*names: str) -> str:
    return ".".join(name for name in names if name)


def _rank(value: object) -> tuple[float, str]:
    """Numbers in their order, everything else in that of its text."""
    try:
        return float(str(value)), ""
    except ValueError:
        return float("inf"), str(value)


def _is_useful_split(frames: list[Frame], pieces: list[list[Frame]]) -> bool:
    deepest = max_frames_per_position(unique_frames(frames))
    if deepest == 1:
        return len(pieces) > 1 and all(len(p) >= MIN_STACK_SLICES and _is_stack(p) for p in pieces)
    shallower = all(max_frames_per_position(unique_frames(piece)) < deepest for piece in pieces)
    return 1 < len(pieces) <= deepest and shallower


def _is_stack(frames: list[Frame]) -> bool:
    kept = unique_frames(frames)
    if len(kept) < 2:
        return True
    if max_frames_per_position(kept) > 1:
        return False
    normal = kept[0].normal
    found = measure_slice_spacing(
        np.array(sorted((f.position for f in kept), key=lambda p: p @ normal)), normal
    )
    return found.max_offset_mm <= MAX_UNEVEN_SHARE * abs(found.median_gap_mm)
