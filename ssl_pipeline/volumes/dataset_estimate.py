"""Estimate of a dataset before the inventory has run: from headers, or from bytes alone.

No scan is rejected here, and an unknown modality is taken for CT.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, repeat
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.config import Data, Root
from ssl_pipeline.volumes.discovery import Candidate, discover_scans
from ssl_pipeline.volumes.inventory import WORKERS, Scan, to_scan
from ssl_pipeline.volumes.pseudonyms import coder
from ssl_pipeline.volumes.scan_check import ScanInfo
from ssl_pipeline.volumes.scan_labels import LabelMatch
from ssl_pipeline.volumes.subjects.assignment import assign_subjects
from ssl_pipeline.volumes.subjects.splits import read_explicit_splits
from ssl_pipeline.volumes.visits.assignment import assign_visits

MAX_HEADERS = 200  # most headers that are opened
TYPICAL_SCAN = ScanInfo(
    format="assumed", shape=(512, 512, 150), spacing_mm=(0.8, 0.8, 2.0), orientation="RAS"
)
TYPICAL_BYTES = 45e6  # of such a scan as a file, and its labels
BASE_BYTES = 240e6  # of a process that has imported the readers
BYTES_PER_VOXEL = 7  # per voxel of a scan that is inspected
BYTES_PER_SCAN = 20_000  # thumbnail and keypoints of each
SECONDS_PER_SCAN, SECONDS_PER_VOXEL = 0.05, 0.04e-6  # of one core


def scans_from_headers(data: Data, study_dir: Path) -> tuple[Scan, ...]:
    """Every scan of a study; of more than MAX_HEADERS, each n-th is opened and stands for the next.

    Raises UserError where there are none, and where a table or list cannot be used.
    """
    throwaway_codes = coder(os.urandom(8))
    candidates = discover_scans(data, study_dir, throwaway_codes).candidates
    explicit_splits = read_explicit_splits(candidates, data.splits, study_dir)
    step = math.ceil(len(candidates) / MAX_HEADERS)
    with ThreadPoolExecutor(WORKERS) as pool:
        headers = list(pool.map(_header_info, candidates[::step]))
    infos = [headers[number // step] for number in range(len(candidates))]
    subjects = assign_subjects(candidates, infos, data.splits, explicit_splits)
    visits = assign_visits(candidates, subjects)
    scans = map(to_scan, candidates, infos, subjects, visits, repeat(_named_labels))
    return tuple(scan for scan in scans if scan.quality == "accepted")


def typical_scans(data: Data, count: int, bytes_per_scan: float) -> tuple[Scan, ...]:
    """Scans like TYPICAL_SCAN, sized by bytes, one per subject, every fifth held out."""
    x, y, z = TYPICAL_SCAN.shape
    info = replace(TYPICAL_SCAN, shape=(x, y, max(1, round(z * bytes_per_scan / TYPICAL_BYTES))))
    roots = data.roots or (Root(path="table"),)
    return tuple(
        Scan(
            **vars(info),
            id=str(number),
            root=root.title,
            subject=str(number),
            modality=root.modality or "CT",
            split="train" if number % 5 else "test",
            targets=dict.fromkeys(root.targets, "assumed"),
            labels=dict.fromkeys(root.labels, True),
            quality="accepted",
        )
        for number, root in zip(range(count), cycle(roots), strict=False)
    )


def inventory_bytes(voxels: list[int]) -> float:
    """Peak resident memory of an inventory of scans of so many voxels each."""
    return (
        BASE_BYTES + BYTES_PER_VOXEL * sum(sorted(voxels)[-WORKERS:]) + BYTES_PER_SCAN * len(voxels)
    )


def inventory_seconds(voxels: list[int]) -> float:
    """Time of one core for an inventory of them."""
    return sum(SECONDS_PER_SCAN + SECONDS_PER_VOXEL * number for number in voxels)


def _header_info(candidate: Candidate) -> ScanInfo:
    name = readers.format_of(candidate.source)
    try:
        grid = readers.read_grid(candidate.source)
    except UserError as error:
        return ScanInfo(format=name, fault=str(error))  # never reported
    return ScanInfo(
        format=name,
        shape=grid.shape,
        spacing_mm=geometry.spacing_mm(grid.affine),
        orientation=geometry.axis_codes(grid.affine),
        file_modality=candidate.modality or "CT",
    )


def _named_labels(candidate: Candidate, scan_sha256: str) -> LabelMatch:
    """The labels that exist, whether or not they fit."""
    return LabelMatch(tuple(candidate.origin.labels))
