"""Check of frames: scans of one visit that share coordinates must show the body at one place.

A header says where a scanner's table was, not where the head was. Every scan of a frame is
registered with the first one; those that the most scans agree with keep the frame, and the others
have moved. Registrations are appended to a file as they come, and reused while both scans are
unchanged, so that an inventory that is killed goes on from them.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from pydantic import ValidationError

from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.io.records import Record
from ssl_pipeline.progress import progress
from ssl_pipeline.types import Affine
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.config import Visits
from ssl_pipeline.volumes.readers import ReadError, Source
from ssl_pipeline.volumes.visits.registration import (
    CoarseScan,
    coarse_scan,
    displacement_mm,
    register,
)

WORKERS = min(4, os.cpu_count() or 1)
REGISTRATIONS_FILE = "registrations.jsonl"
MatrixRows = tuple[tuple[float, float, float, float], ...]  # (4, 4)
Corners = tuple[tuple[float, float, float], ...]  # (8, 3) RAS+ mm


class ScanPair(Record):
    """A scan that was registered with the first scan of its frame; a line of the file."""

    format: Literal[1] = 1
    reference: str  # code of a scan
    scan: str
    reference_sha256: str
    scan_sha256: str
    corners: Corners = ()  # of the reference
    matrix: MatrixRows = ()  # from mm of the scan to mm of the reference; empty where it failed
    motion_mm: float = 0.0
    consistency_mm: float = 0.0  # by how much registering there and back misses where it began

    @property
    def key(self) -> tuple[str, ...]:
        """What it holds for: two scans as they were."""
        return (self.reference, self.scan, self.reference_sha256, self.scan_sha256)


class RegistrationLog:
    """The registrations of an inventory, in one file."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._known = {pair.key: pair for pair in self._read()}
        self._used: dict[tuple[str, ...], ScanPair] = {}

    def find(self, key: tuple[str, ...]) -> ScanPair | None:
        """The registration of two scans as they are; None where there is none yet."""
        return self._known.get(key)

    def add(self, pair: ScanPair) -> None:
        """Keep a registration; a new one is appended at once."""
        with self._lock:
            self._used[pair.key] = pair
            if pair.key not in self._known:
                with open(self._path, "ab") as file:  # behind a break, if the last line was torn
                    file.write(b"\n" + pair.model_dump_json().encode())

    def finish(self) -> None:
        """Write the file anew with the registrations that are in use, by their scans."""
        lines = [self._used[key].model_dump_json() + "\n" for key in sorted(self._used)]
        write_text(self._path, "".join(lines))

    def _read(self) -> Iterable[ScanPair]:
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for line in lines:
            try:
                yield ScanPair.model_validate_json(line)
            except ValidationError:  # torn, empty, or of another version
                continue


@dataclass(frozen=True)
class FrameMember:
    """A usable scan that has a visit and a frame."""

    id: str
    group: tuple[str, str]  # the codes of both
    sha256: str
    source: Source
    missing_value: float | None


@dataclass(frozen=True)
class FrameCheck:
    """What the check of its frame found of a scan that does not lie where its header says."""

    note: str
    # (4, 4) from its RAS+ mm to those of its frame; [] where it leaves it
    to_frame: list[list[float]] = field(default_factory=list)


def check_frames(
    members: Sequence[FrameMember], visits: Visits, log: RegistrationLog
) -> dict[str, FrameCheck]:
    """The scans that have moved, or cannot be registered, by their codes."""
    groups: dict[tuple[str, str], list[FrameMember]] = {}
    for each in members:
        groups.setdefault(each.group, []).append(each)
    several = [group for group in groups.values() if len(group) > 1]
    found: dict[str, FrameCheck] = {}
    if visits.alignment == "none" or not several:
        return found
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        progress("Comparing scans of one frame", len(several)) as bar,
    ):
        for pairs in pool.map(lambda group: _register_all(group, log), several):
            found |= _moved_scans(pairs, visits)
            bar.advance()
    return found


def _register_all(group: Sequence[FrameMember], log: RegistrationLog) -> list[ScanPair]:
    """The registration of each scan of a frame with the first."""
    first, *others = group
    known = [log.find((first.id, each.id, first.sha256, each.sha256)) for each in others]
    coarse = None if all(known) else _read_coarse(first)
    pairs = []
    for other, pair in zip(others, known, strict=True):
        pairs.append(pair or _register_pair(first, other, coarse))
        log.add(pairs[-1])
    return pairs


def _register_pair(
    reference: FrameMember, scan: FrameMember, coarse: CoarseScan | None
) -> ScanPair:
    """The registration of a scan with a reference that was read, if it could be."""
    own = _read_coarse(scan) if coarse else None
    pair = ScanPair(
        reference=reference.id,
        scan=scan.id,
        reference_sha256=reference.sha256,
        scan_sha256=scan.sha256,
    )
    found = register(coarse, own) if coarse and own else None
    if coarse is None or found is None:
        return pair
    more = {
        "corners": tuple(map(tuple, coarse.corners.tolist())),
        "matrix": tuple(map(tuple, found.matrix.tolist())),
        "motion_mm": found.motion_mm,
        "consistency_mm": found.consistency_mm,
    }
    return pair.model_copy(update=more)


def _read_coarse(member: FrameMember) -> CoarseScan | None:
    """The scan at low resolution; None where it cannot be read any more."""
    try:
        volume = readers.read_volume(member.source)
    except ReadError:
        return None
    return coarse_scan(volume.with_missing_value(member.missing_value))


def _moved_scans(pairs: Sequence[ScanPair], visits: Visits) -> dict[str, FrameCheck]:
    """The scans of one frame that do not lie with most of the others."""
    limit = visits.max_motion_mm
    failed = [pair for pair in pairs if not pair.matrix or pair.consistency_mm > limit]
    found = {
        pair.scan: FrameCheck(
            f"could not be registered with {pair.reference}, which has its frame of reference, and"
            " left the frame"
        )
        for pair in failed
    }
    sound = [pair for pair in pairs if pair not in failed]
    if not sound:
        return found
    corners = np.array(sound[0].corners)
    places = {sound[0].reference: np.eye(4)} | {each.scan: np.array(each.matrix) for each in sound}

    def apart_mm(one: str, other: str) -> float:
        return displacement_mm(np.linalg.inv(places[one]) @ places[other], corners)

    anchor = max(places, key=lambda one: sum(apart_mm(one, other) <= limit for other in places))
    back = np.linalg.inv(places[anchor])
    for name, matrix in places.items():
        if (motion := apart_mm(anchor, name)) > limit:
            found[name] = _moved(anchor, motion, back @ matrix, visits)
    return found


def _moved(anchor: str, motion_mm: float, to_frame: Affine, visits: Visits) -> FrameCheck:
    moved = f"moved by {motion_mm:.1f} mm against {anchor}, which has its frame of reference"
    if visits.alignment == "register":
        return FrameCheck(f"{moved}, and was registered with it", to_frame.tolist())
    return FrameCheck(f"{moved}, and left the frame")
