"""The table of all scans: whose each is, what it holds, and whether it is fit to learn from.

Nothing is dropped in silence: a scan that cannot be used, and a label without an image, keeps its
row and the reason.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline import atomic
from ssl_pipeline.errors import UserError
from ssl_pipeline.progress import progress
from ssl_pipeline.volumes import labels, readers
from ssl_pipeline.volumes.candidates import Candidate, find_candidates
from ssl_pipeline.volumes.dataset import Data, Root
from ssl_pipeline.volumes.inspection import Look, Seen, look_at, look_of
from ssl_pipeline.volumes.splits import deal
from ssl_pipeline.volumes.verdicts import Quality

FORMAT_VERSION = 2
WORKERS = min(4, os.cpu_count() or 1)
LABEL = "label"  # the format of a row that stands for a label without an image
USABLE = ("accepted", "repaired")
WORDS = pa.map_(pa.string(), pa.string())
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "path", "series", "root", "subject", "site"), pa.string()),
        **dict.fromkeys(("modality", "split"), pa.string()),
        **dict.fromkeys(("weight", "intensity_offset", "missing_value"), pa.float64()),
        **dict.fromkeys(("targets", "labels"), WORDS),
        "format": pa.string(),
        "shape": pa.list_(pa.int64()),
        "spacing_mm": pa.list_(pa.float64()),
        **dict.fromkeys(("orientation", "file_modality", "sha256", "pixels"), pa.string()),
        **dict.fromkeys(("size_bytes", "mtime_ns"), pa.int64()),
        **dict.fromkeys(("judged", "fault", "repair", "verdict", "reason"), pa.string()),
    },
    metadata={"ssl_pipeline": json.dumps({"format": FORMAT_VERSION})},
)


@dataclass(frozen=True, kw_only=True)
class Scan(Look):
    """One scan: what was seen in it, and what is said of it."""

    id: str  # 12 hex digits, from root name, path below the root, and series
    path: str  # file, or folder of a DICOM series
    series: str = ""
    root: str
    subject: str = ""
    site: str = ""
    modality: str = ""
    split: str = ""
    weight: float = 1.0
    targets: dict[str, str]
    labels: dict[str, str]  # label name to file, "" where there is none
    intensity_offset: float = 0.0
    missing_value: float | None = None
    verdict: str  # "accepted", "repaired" or "rejected"
    reason: str = ""  # why it was rejected, what was repaired, or a note


@dataclass(frozen=True)
class Inventory:
    """All scans sorted by path, and the rows of labels that belong to no image.

    `thumbnails` has a JPEG of each scan that could be opened, by id; it is kept in a file of its
    own, so that stages which read the table need not load it.
    """

    scans: tuple[Scan, ...]
    orphan_labels: tuple[Scan, ...] = ()
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def accepted(self) -> tuple[Scan, ...]:
        """The scans that are fit to learn from, repaired ones among them."""
        return tuple(scan for scan in self.scans if scan.verdict in USABLE)

    @property
    def orphans(self) -> tuple[str, ...]:
        """A sentence for every label without an image."""
        return tuple(f"{scan.path}: {scan.reason}" for scan in self.orphan_labels)

    def write(self, path: Path) -> None:
        """Write the table as Parquet; equal inventories make equal files."""
        rows = [asdict(scan) for scan in (*self.scans, *self.orphan_labels)]
        with atomic.replacing(path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)

    @classmethod
    def read(cls, path: Path) -> "Inventory":
        """Read what `write` wrote. Raises UserError for a table of another version."""
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {}).get(b"ssl_pipeline", b"{}"))
        if about.get("format") != FORMAT_VERSION:
            raise UserError(
                f"{path}: is an inventory of format {about.get('format')}, and this version reads"
                f" {FORMAT_VERSION}; remove it, and it is made anew."
            )
        rows = [_scan(row) for row in table.to_pylist(maps_as_pydicts="strict")]
        return cls(
            tuple(row for row in rows if row.format != LABEL),
            tuple(row for row in rows if row.format == LABEL),
        )


def _scan(row: dict[str, Any]) -> Scan:
    return Scan(**row | {"shape": tuple(row["shape"]), "spacing_mm": tuple(row["spacing_mm"])})


LabelsOf = Callable[[Candidate], tuple[dict[str, str], str]]


def take_inventory(
    data: Data, quality: Quality, study_dir: Path, previous: Inventory | None = None
) -> Inventory:
    """Look at every scan of a study; those that `previous` knows unchanged are not read again.

    `study_dir` is where table and lists lie. Raises UserError, one sentence, for a root
    without images, a rule that does not fit, a table or list that cannot be used.
    """
    found = find_candidates(data, study_dir)
    splits = deal(found.candidates, data.splits, study_dir)
    seen = _look_at_all(found.candidates, quality, previous)
    scans = [
        described(candidate, each.look, splits.get(candidate.subject, ""), _fitting_labels)
        for candidate, each in zip(found.candidates, seen, strict=True)
    ]
    return Inventory(
        tuple(_without_repeats(scans)),
        tuple(_orphan(root, path) for root, path in found.orphans),
        {scan.id: each.thumbnail for scan, each in zip(scans, seen, strict=True) if each.thumbnail},
    )


def _look_at_all(
    candidates: tuple[Candidate, ...], quality: Quality, previous: Inventory | None
) -> list[Seen]:
    before = previous or Inventory(())
    known = {
        (scan.path, scan.series): Seen(look_of(scan), before.thumbnails.get(scan.id, b""))
        for scan in before.scans
    }

    def look(each: Candidate) -> Seen:
        seen = known.get((str(each.source.path), each.source.series))
        return look_at(each.source, each.root, each.modality, quality, seen)

    seen = []
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        progress("Looking at scans", len(candidates)) as bar,
    ):
        for candidate, each in zip(candidates, pool.map(look, candidates), strict=True):
            seen.append(each)
            bar.advance(candidate.relative)
    return seen


def described(candidate: Candidate, look: Look, split: str, labels_of: LabelsOf) -> Scan:
    """The row of a candidate, with the labels that `labels_of` gives it and its note on them."""
    root, source = candidate.root, candidate.source
    modality = candidate.modality or look.file_modality
    reason = look.fault or candidate.stray
    if not reason and not modality:
        reason = "modality is unknown: set `modality` for this root"
    own, notes = ({}, "") if reason else labels_of(candidate)
    return Scan(
        **asdict(look),
        id=_id(root, candidate.relative, source.series),
        path=str(source.path),
        series=source.series,
        root=root.title,
        subject=candidate.subject,
        site=candidate.site,
        modality=modality,
        split=split,
        weight=root.weight,
        targets=candidate.targets,
        labels={name: own.get(name, "") for name in candidate.labels},
        intensity_offset=root.intensity_offset,
        missing_value=root.missing_value,
        verdict="rejected" if reason else "repaired" if look.repair else "accepted",
        reason=reason or "; ".join(text for text in (look.repair, notes) if text),
    )


def _id(root: Root, relative: str, series: str) -> str:
    return hashlib.sha256("\n".join((root.title, relative, series)).encode()).hexdigest()[:12]


def _fitting_labels(candidate: Candidate) -> tuple[dict[str, str], str]:
    """The labels that lie on the image's own grid, and what is wrong with the others."""
    given = {name: path for name, path in candidate.labels.items() if path}
    if not given:
        return {}, ""
    grid = readers.header(candidate.source)
    faults = {name: labels.misfit(name, path, grid) for name, path in given.items()}
    fitting = {name: str(path) for name, path in given.items() if not faults[name]}
    return fitting, "; ".join(fault for fault in faults.values() if fault)


def _without_repeats(scans: list[Scan]) -> list[Scan]:
    """The scans, sorted by path, of which the second of one image is rejected."""
    names: dict[Path, Scan] = {}
    pixels: dict[str, Scan] = {}
    kept = []
    for scan in scans:
        if scan.verdict in USABLE:
            name = Path(readers.stem(scan.path)) / scan.series
            reason = _repeats(scan, names.get(name), pixels.get(scan.pixels))
            if reason:
                scan = replace(scan, verdict="rejected", reason=reason)
            else:
                names[name] = pixels[scan.pixels] = scan
        kept.append(scan)
    return kept


def _repeats(scan: Scan, namesake: Scan | None, equal: Scan | None) -> str:
    if namesake:
        return f"two files of one scan: {Path(namesake.path).name} ({namesake.id}) is used"
    return f"duplicate of {equal.id}: its voxels equal those of {equal.path}" if equal else ""


def _orphan(root: Root, path: Path) -> Scan:
    return Scan(
        id=_id(root, path.as_posix(), LABEL),
        path=str(path),
        root=root.title,
        targets={},
        labels={},
        format=LABEL,
        verdict="rejected",
        reason="label without image",
    )
