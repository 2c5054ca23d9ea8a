"""What the inventory will find, before it has run: from headers, or from no more than bytes.

No scan is rejected here, and where nobody says the modality it is taken for CT.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, repeat
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.candidates import Candidate, find_candidates
from ssl_pipeline.volumes.dataset import Data, Root
from ssl_pipeline.volumes.inspection import Look
from ssl_pipeline.volumes.inventory import WORKERS, Drawn, Scan, described
from ssl_pipeline.volumes.origins import coder
from ssl_pipeline.volumes.splits import named_splits
from ssl_pipeline.volumes.subjects import whose

HEADERS = 200  # most headers that are opened
TYPICAL = Look(
    format="assumed", shape=(512, 512, 150), spacing_mm=(0.8, 0.8, 2.0), orientation="RAS"
)
TYPICAL_BYTES = 45e6  # of such a scan as a file, and its labels
BASE_BYTES = 240e6  # of a process that has imported the readers
LOOK_BYTES = 7  # a voxel of a scan that is looked at
SCAN_BYTES = 20_000  # kept of each: thumbnail, keypoints
LOOK_S, LOOK_S_A_VOXEL = 0.05, 0.04e-6  # of one core, for a scan and for each of its voxels


def from_headers(data: Data, study_dir: Path) -> tuple[Scan, ...]:
    """Every scan of a study; of more than HEADERS, each n-th is opened and speaks for the next.

    Raises UserError where there are none, and where a table or list cannot be used.
    """
    found = find_candidates(data, study_dir, coder(os.urandom(8)))  # nobody keeps these codes
    named = named_splits(found.candidates, data.splits, study_dir)
    step = math.ceil(len(found.candidates) / HEADERS)
    with ThreadPoolExecutor(WORKERS) as pool:
        headers = list(pool.map(_header, found.candidates[::step]))
    looks = [headers[number // step] for number in range(len(found.candidates))]
    each = whose(found.candidates, looks, data.splits, named)
    scans = map(described, found.candidates, looks, each, repeat(_named_labels))
    return tuple(scan for scan in scans if scan.verdict == "accepted")


def typical(data: Data, count: int, bytes_each: float) -> tuple[Scan, ...]:
    """Scans like TYPICAL with slices for so many bytes, one a subject, every fifth held out."""
    x, y, z = TYPICAL.shape
    seen = replace(TYPICAL, shape=(x, y, max(1, round(z * bytes_each / TYPICAL_BYTES))))
    roots = data.roots or (Root(path="table"),)
    return tuple(
        Scan(
            **vars(seen),
            id=str(number),
            root=root.title,
            subject=str(number),
            modality=root.modality or "CT",
            split="train" if number % 5 else "test",
            targets=dict.fromkeys(root.targets, "assumed"),
            labels=dict.fromkeys(root.labels, True),
            verdict="accepted",
        )
        for number, root in zip(range(count), cycle(roots), strict=False)
    )


def look_bytes(voxels: list[int]) -> float:
    """Peak resident memory of an inventory of scans of so many voxels each."""
    return BASE_BYTES + LOOK_BYTES * sum(sorted(voxels)[-WORKERS:]) + SCAN_BYTES * len(voxels)


def look_seconds(voxels: list[int]) -> float:
    """Time of one core for an inventory of them."""
    return sum(LOOK_S + LOOK_S_A_VOXEL * number for number in voxels)


def _header(candidate: Candidate) -> Look:
    name = readers.format_of(candidate.source)
    try:
        grid = readers.header(candidate.source)
    except UserError as error:
        return Look(format=name, fault=str(error))  # it is shown to nobody
    return Look(
        format=name,
        shape=grid.shape,
        spacing_mm=geometry.spacing_mm(grid.affine),
        orientation=geometry.axis_codes(grid.affine),
        file_modality="CT",
    )


def _named_labels(candidate: Candidate) -> Drawn:
    """The labels that are there, whether or not they fit."""
    return Drawn(tuple(candidate.origin.labels))
