"""The inventory: a table of all scans with their quality, subject, split and labels.

Nothing is dropped silently: a scan that cannot be used, and a label without an image, keeps its row
and the reason. Scans and subjects are named by their codes; `pseudonyms` knows their files.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import atomic_write, sha256_json
from ssl_pipeline.io.parquet import from_table, read_metadata, read_table, to_table
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.check_journal import CheckJournal
from ssl_pipeline.volumes.config import Data, Visits
from ssl_pipeline.volumes.discovery import (
    Candidate,
    IdleExclude,
    OrphanLabel,
    check_labels,
    count_formats,
    discover_scans,
)
from ssl_pipeline.volumes.duplicates.keypoints import Keypoints
from ssl_pipeline.volumes.duplicates.pairs import find_duplicate_pairs
from ssl_pipeline.volumes.inspection import inspect_scans
from ssl_pipeline.volumes.pseudonyms import Coder, Origin, PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.returned_labels import LabelFault, ReturnedLabel, add_returned_labels
from ssl_pipeline.volumes.review import NO_DECISIONS, REJECTED, Decisions
from ssl_pipeline.volumes.scan_check import ScanCheck, ScanInfo, modality_note, scan_info_of
from ssl_pipeline.volumes.scan_labels import LabelMatch, LabelMatcher, match_labels
from ssl_pipeline.volumes.subjects.assignment import (
    SubjectAssignment,
    assign_subjects,
    assigned_origins,
)
from ssl_pipeline.volumes.subjects.splits import read_explicit_splits
from ssl_pipeline.volumes.target_values import check_targets
from ssl_pipeline.volumes.visits.assignment import VisitAssignment, assign_visits
from ssl_pipeline.volumes.visits.frames import FrameMember, RegistrationLog, check_frames
from ssl_pipeline.volumes.walk import FileState

INVENTORY_FILE = "scans.parquet"
FORMAT_VERSION = 11
WORKERS = min(4, os.cpu_count() or 1)
LABEL_FORMAT = "label"  # the format of a row that stands for a label without an image
USABLE = ("accepted", "repaired")
JSON_COLUMNS = ("targets", "labels", "label_classes", "label_checks", "masks", "to_frame")
TUPLE_COLUMNS = ("shape", "spacing_mm")
REMEDY = "run the stage inventory again"
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "part", "root", "subject", "visit"), pa.string()),
        **dict.fromkeys(("frame", "site", "modality", "sequence", "split"), pa.string()),
        **dict.fromkeys(("weight", "intensity_offset", "missing_value"), pa.float64()),
        **dict.fromkeys(JSON_COLUMNS, pa.string()),
        "format": pa.string(),
        "shape": pa.list_(pa.int64()),
        "spacing_mm": pa.list_(pa.float64()),
        **dict.fromkeys(("orientation", "file_modality", "sha256", "voxel_hash"), pa.string()),
        "size_bytes": pa.int64(),
        **dict.fromkeys(("files_hash", "criteria_hash", "fault", "repair"), pa.string()),
        **dict.fromkeys(("note", "review"), pa.string()),
        **dict.fromkeys(("quality", "reason", "copy_of", "visit_of"), pa.string()),
    }
)


@dataclass(frozen=True, kw_only=True)
class Scan(ScanInfo):
    """One row of the inventory: what the scan's files hold, and its metadata."""

    id: str  # its code
    part: str = ""  # the name of this volume where its DICOM series was split
    root: str
    subject: str = ""  # code, as those of visit and frame
    visit: str = ""
    frame: str = ""  # scans of one subject and frame show one place at equal RAS+ mm
    to_frame: list[list[float]] = field(default_factory=list)  # (4, 4): its RAS+ mm to those, or []
    site: str = ""
    modality: str = ""
    sequence: str = ""  # such as "T1c"
    split: str = ""
    weight: float = 1.0
    targets: dict[str, str]
    labels: dict[str, bool]  # whether the scan has a label of this name that fits it
    label_classes: dict[str, list[int]] = field(default_factory=dict)  # of those that were read
    # of labels that can be used, whatever readers said: `sha256`, a LabelVerdict, LabelProvenance
    label_checks: dict[str, dict[str, str]] = field(default_factory=dict)
    masks: dict[str, dict[str, str]] = field(default_factory=dict)  # which `label`, its `sha256`
    intensity_offset: float = 0.0
    missing_value: float | None = None
    quality: str  # "accepted", "repaired" or "rejected"
    reason: str = ""  # why it was rejected, what was repaired, or a note
    copy_of: str = ""  # the scan under another name that it is a near duplicate of
    visit_of: str = ""  # a scan under another name of one study of a scanner

    @property
    def label_versions(self) -> dict[str, dict[str, str]]:
        """The checks of the labels that are used."""
        return {name: each for name, each in self.label_checks.items() if self.labels.get(name)}


@dataclass(frozen=True)
class Inventory:
    """All scans, by root and path, and the rows of labels that belong to no image.

    `salt_fingerprint` identifies the salt that all codes were made with, `splits_hash` the settings
    that splits were assigned by. `thumbnails` has a JPEG of each scan that could be opened, by id,
    and `keypoints` those by which near duplicates are found; both are kept in files of their own,
    so that stages which read the table need not load them. `file_states` has every raw file, by
    path, as it was discovered, `unused_files` those that are part of no image, `idle_excludes` the
    patterns that leave nothing out, and `label_faults` why labels that came back are not used; none
    of these is stored. `unread_formats` counts the unused files by root and suffix.
    """

    scans: tuple[Scan, ...]
    orphan_labels: tuple[Scan, ...] = ()
    salt_fingerprint: str = ""
    splits_hash: str = ""
    unread_formats: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    keypoints: Mapping[str, Keypoints] = field(default_factory=dict, compare=False, repr=False)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    file_states: Mapping[str, FileState] = field(default_factory=dict, compare=False, repr=False)
    unused_files: tuple[Path, ...] = field(default=(), compare=False, repr=False)
    idle_excludes: tuple[IdleExclude, ...] = field(default=(), compare=False, repr=False)
    label_faults: tuple[LabelFault, ...] = field(default=(), compare=False, repr=False)

    @property
    def accepted_scans(self) -> tuple[Scan, ...]:
        """The usable scans: accepted and repaired ones."""
        return tuple(scan for scan in self.scans if scan.quality in USABLE)

    def write(self, path: Path) -> None:
        """Write the table as Parquet; equal inventories make equal files."""
        rows = (*self.scans, *self.orphan_labels)
        header = {
            "format": FORMAT_VERSION,
            "salt_fingerprint": self.salt_fingerprint,
            "splits_hash": self.splits_hash,
            "unread_formats": self.unread_formats,
        }
        metadata = {"ssl_pipeline": json.dumps(header)}
        with atomic_write(path) as temporary:
            pq.write_table(to_table(rows, SCHEMA.with_metadata(metadata), JSON_COLUMNS), temporary)

    @classmethod
    def read(cls, path: Path) -> "Inventory":
        """Read an inventory. Raises UserError for a table of another version."""
        table = read_table(path, REMEDY, ("id", "subject", "quality"))
        header = _header(table.schema.metadata or {})
        if header.get("format") != FORMAT_VERSION:
            raise UserError(
                f"{path}: is an inventory of format {header.get('format')}, and this version reads"
                f" {FORMAT_VERSION}: run the stage inventory, to build it again."
            )
        rows = list(from_table(table, Scan, JSON_COLUMNS, TUPLE_COLUMNS))
        return cls(
            tuple(row for row in rows if row.format != LABEL_FORMAT),
            tuple(row for row in rows if row.format == LABEL_FORMAT),
            header["salt_fingerprint"],
            header["splits_hash"],
            header["unread_formats"],
        )


def read_salt_fingerprint(path: Path) -> str:
    """The fingerprint of the salt that an inventory was made with; empty where there is none."""
    if not path.exists():
        return ""
    return str(_header(read_metadata(path, REMEDY)).get("salt_fingerprint", ""))


def _header(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    return dict(json.loads(metadata.get(b"ssl_pipeline", b"{}")))


def build_inventory(
    data: Data,
    thresholds: QualityThresholds,
    study_dir: Path,
    pseudonyms: PseudonymStore,
    previous: Inventory | None = None,
    journal: CheckJournal | None = None,
    decisions: Decisions = NO_DECISIONS,
    registrations: RegistrationLog | None = None,
    returned_labels: Iterable[ReturnedLabel] = (),
) -> Inventory:
    """Build the inventory of a study; scans that are unchanged since `previous` are not read again.

    Nor are those that `journal` has of a run that was killed; each new check is added to it.
    `study_dir` is where table and lists lie. The location of every scan is written to `pseudonyms`
    first, so that any message about a scan can be traced. `decisions` are those of readers. Frames
    are checked where `registrations` keeps what comes of it. `returned_labels` lie outside of the
    roots' folders. Raises UserError for a root without images, a rule that does not fit, a table or
    list that cannot be used, and a lost salt.
    """
    pseudonyms.open(previous.salt_fingerprint if previous else "")
    discovery = discover_scans(data, study_dir, pseudonyms.code)
    candidates = discovery.candidates
    orphans, orphan_origins = _orphan_rows(pseudonyms.code, discovery.orphans)
    pseudonyms.write([*(each.location for each in candidates), *orphan_origins])
    pseudonyms.write([*(each.origin for each in candidates), *orphan_origins])
    check_targets(candidates)
    check_labels(candidates)
    splits_hash = sha256_json(data.splits.model_dump(exclude={"duplicate_threshold"}))
    checks = inspect_scans(discovery, thresholds, decisions, _known(previous, journal), journal)
    infos = [check.info for check in checks]
    subjects = assign_subjects(
        candidates,
        infos,
        data.splits,
        read_explicit_splits(candidates, data.splits, study_dir),
        find_duplicate_pairs(candidates, checks, data.splits.duplicate_threshold),
        _earlier_splits(previous, splits_hash),
        decisions,
    )
    labelled, faults = add_returned_labels(candidates, infos, subjects, returned_labels)
    scans = _to_scans(labelled, infos, subjects, decisions, data.visits, registrations)
    pseudonyms.write([*assigned_origins(labelled, subjects), *orphan_origins])
    checks_by_id = {scan.id: check for scan, check in zip(scans, checks, strict=True)}
    return Inventory(
        tuple(scans),
        tuple(orphans),
        pseudonyms.salt_fingerprint,
        splits_hash,
        count_formats(discovery.unused_files),
        {name: each.keypoints for name, each in checks_by_id.items() if each.keypoints},
        {name: each.thumbnail for name, each in checks_by_id.items() if each.thumbnail},
        discovery.file_states,
        tuple(file.path for file in discovery.unused_files),
        discovery.idle_excludes,
        tuple(faults),
    )


def _earlier_splits(previous: Inventory | None, splits_hash: str) -> dict[str, str]:
    """The split of each scan of a subject, where it came about by the same settings."""
    scans = previous.scans if previous and previous.splits_hash == splits_hash else ()
    return {scan.id: scan.split for scan in scans if scan.subject}


def _known(previous: Inventory | None, journal: CheckJournal | None) -> dict[str, ScanCheck]:
    """The checks of an earlier inventory, and those of a run that was killed, by the scan's id."""
    before = previous or Inventory(())
    known = {
        scan.id: ScanCheck(
            scan_info_of(scan), before.thumbnails.get(scan.id, b""), before.keypoints.get(scan.id)
        )
        for scan in before.scans
    }
    return known | (journal.read() if journal else {})


def _to_scans(
    candidates: Sequence[Candidate],
    infos: Sequence[ScanInfo],
    subjects: Sequence[SubjectAssignment],
    decisions: Decisions,
    visits: Visits,
    registrations: RegistrationLog | None,
) -> list[Scan]:
    """The rows of all candidates, after the checks of each against the others."""
    assigned = assign_visits(candidates, subjects)
    matcher = partial(match_labels, decisions=decisions)
    with ThreadPoolExecutor(WORKERS) as pool:
        rows = pool.map(to_scan, candidates, infos, subjects, assigned, repeat(matcher))
        scans = _reject_duplicates(candidates, list(rows))
    if registrations is None:
        return scans
    return _check_frames(candidates, scans, visits, registrations)


def to_scan(
    candidate: Candidate,
    info: ScanInfo,
    assignment: SubjectAssignment,
    visit: VisitAssignment,
    match_labels: LabelMatcher,
) -> Scan:
    """The row of a candidate, with the labels that `match_labels` finds for it."""
    root = candidate.root
    modality = info.file_modality or candidate.modality
    reason = info.fault or candidate.subject_fault or assignment.fault
    if not reason and not modality:
        reason = "modality is unknown: set `modality` for this root"
    # A reader's rejection of the scan changes nothing about what is asked of its labels.
    has_labels = not reason or reason.startswith(REJECTED)
    own = match_labels(candidate, info.sha256) if has_labels else LabelMatch()
    return Scan(
        **asdict(info),
        id=candidate.id,
        part=candidate.source.series.partition("#")[2],
        root=root.title,
        subject=assignment.subject,
        visit=visit.visit,
        frame=visit.frame,
        site=candidate.site,
        modality=modality,
        sequence=candidate.sequence,
        split=assignment.split,
        weight=candidate.weight,
        targets=candidate.targets,
        labels={name: name in own.labels for name in candidate.labels},
        label_classes=dict(own.classes),
        label_checks=dict(own.checks),
        masks=dict(own.masks),
        intensity_offset=root.intensity_offset,
        missing_value=root.missing_value,
        quality="rejected" if reason else "repaired" if info.repair else "accepted",
        copy_of=assignment.copy_of,
        visit_of=assignment.visit_of,
        reason=reason
        or "; ".join(
            text
            for text in (
                *(info.repair, info.note, info.review, modality_note(info, candidate.modality)),
                *(assignment.note, visit.note, own.note),
            )
            if text
        ),
    )


def _reject_duplicates(candidates: Sequence[Candidate], scans: list[Scan]) -> list[Scan]:
    """The scans, with the second one of the same image rejected."""
    by_name: dict[Path, Scan] = {}
    by_voxels: dict[str, Scan] = {}
    rows = []
    for candidate, scan in zip(candidates, scans, strict=True):
        if scan.quality in USABLE:
            name = Path(readers.strip_suffix(str(candidate.source.path))) / candidate.source.series
            reason = _duplicate_reason(scan, by_name.get(name), by_voxels.get(scan.voxel_hash))
            if reason:
                scan = replace(scan, quality="rejected", reason=reason)
            else:
                by_name[name] = by_voxels[scan.voxel_hash] = scan
        rows.append(scan)
    return rows


def _check_frames(
    candidates: Sequence[Candidate], scans: list[Scan], visits: Visits, log: RegistrationLog
) -> list[Scan]:
    """The scans, with a note on those that moved; they leave their frame unless registered."""
    members = [
        FrameMember(scan.id, (scan.visit, scan.frame), scan.sha256, each.source, scan.missing_value)
        for each, scan in zip(candidates, scans, strict=True)
        if scan.quality in USABLE and scan.visit and scan.frame
    ]
    checks = check_frames(members, visits, log)

    def checked(scan: Scan) -> Scan:
        if not (check := checks.get(scan.id)):
            return scan
        reason = "; ".join(filter(None, (scan.reason, check.note)))
        frame = scan.frame if check.to_frame else ""
        return replace(scan, reason=reason, frame=frame, to_frame=check.to_frame)

    return [checked(scan) for scan in scans]


def _duplicate_reason(scan: Scan, namesake: Scan | None, equal: Scan | None) -> str:
    if namesake:
        return f"two files of one scan: {namesake.id} is used"
    return f"duplicate of {equal.id}: their voxels are equal" if equal else ""


def _orphan_rows(code: Coder, orphans: Sequence[OrphanLabel]) -> tuple[list[Scan], list[Origin]]:
    """The rows of labels without an image, and where they lie."""
    rows = [
        Scan(
            id=code(orphan.root.title, orphan.key, LABEL_FORMAT),
            root=orphan.root.title,
            targets={},
            labels={},
            format=LABEL_FORMAT,
            quality="rejected",
            reason="label without image",
        )
        for orphan in orphans
    ]
    return rows, [Origin(row.id, str(at.path)) for row, at in zip(rows, orphans, strict=True)]
