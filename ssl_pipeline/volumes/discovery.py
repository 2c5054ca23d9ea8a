"""Discovery of scans: every image of a study's roots and table, before any is opened.

A row of the table whose path was also found under a root says more of that scan, or of all scans in
that folder; any other row adds its scans.
"""

import mimetypes
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.text import compose, normalize_word
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.bids import BidsImage, parse_bids
from ssl_pipeline.volumes.config import Data, Root, resolve_path
from ssl_pipeline.volumes.label_matching import LabelFolder, LabelProvenance, find_labels
from ssl_pipeline.volumes.metadata_rules import Rule
from ssl_pipeline.volumes.metadata_table import RowLookup, TableRow, read_table
from ssl_pipeline.volumes.pseudonyms import Coder, Origin
from ssl_pipeline.volumes.readers import READERS, Source
from ssl_pipeline.volumes.walk import FileState, RawFiles, is_unlistable, real_location

# Results say no suffix that may be a word of a name, as in `IM.anna`.
KNOWN_SUFFIXES = {*mimetypes.types_map, *mimetypes.encodings_map} | {
    *(".7z", ".dat", ".hdr", ".img", ".mat", ".md", ".mgh", ".mgz", ".mif", ".mnc", ".nii", ".npy"),
    *(".npz", ".par", ".parquet", ".raw", ".rar", ".rec", ".xlsx", ".yaml", ".zst"),
}


@dataclass(frozen=True)
class Candidate:
    """An image to inspect, and its metadata from outside of its file."""

    source: Source
    root: Root
    relative_path: str  # path below the root, with "/"
    row: TableRow | None
    labels: dict[str, Path | None]
    code: Coder
    # Of labels that came back to the study, and why others that did are not used.
    label_provenance: Mapping[str, LabelProvenance] = field(default_factory=dict)
    label_note: str = ""

    @property
    def id(self) -> str:
        """The scan's code, from the root's name, the path below it, and the series."""
        return self.code(self.root.title, self.relative_path, self.source.series)

    @property
    def location(self) -> Origin:
        """The files of the scan, known before any rule is applied."""
        labels = {name: str(path) for name, path in self.labels.items() if path}
        source = self.source
        return Origin(
            self.id, str(source.path), source.series, labels=labels, left_out=source.left_out
        )

    @property
    def origin(self) -> Origin:
        """The files of the scan and the name of its subject, which results do not contain."""
        return replace(self.location, subject=self.subject, subject_name=self.subject_name)

    @property
    def file_paths(self) -> tuple[str, ...]:
        """The paths that patterns see: of each of the scan's files, below the root, composed."""
        names = [path.name for path in self.source.files]
        folder = PurePosixPath(self.relative_path)
        paths = tuple(str(folder / name) for name in names) or (self.relative_path,)
        return tuple(map(compose, paths))

    @cached_property
    def subject_fault(self) -> str:
        """Why the subject rule does not apply to this scan; empty where it does."""
        rule = self.root.subject
        if rule is None or rule.pattern is None or (self.row and self.row.get("subject")):
            return ""
        mismatch = next(filter(None, map(rule.pattern_mismatch, self.file_paths)), "")
        if mismatch:
            return mismatch
        count = len({rule.value(path, None, self.id) for path in self.file_paths})
        if count == 1:
            return ""
        return (
            f"the pattern `{rule.pattern}` gives {count} subjects for the files of one series;"
            " change the pattern, or put the files of each series into a folder of their own"
        )

    @cached_property
    def subject_name(self) -> str:
        """The subject's name: from the table, else the rule, else BIDS, else empty."""
        if self.subject_fault:
            return ""
        return self._value_of("subject", self.root.subject) or (
            normalize_word(self._bids.subject) if self._bids else ""
        )

    @property
    def subject(self) -> str:
        """The code of this name; empty where it is unknown."""
        return self.code("subject", self.subject_name) if self.subject_name else ""

    @cached_property
    def visit_name(self) -> str:
        """The subject's visit: from the table, else the rule, else BIDS or the header; a UID may be
        one of many people.
        """
        return self._own_value("visit", self.root.visit) or (
            self._bids.session if self._bids else self.source.study_uid
        )

    @cached_property
    def frame_name(self) -> str:
        """The subject's frame: from the table, else the rule, else the header, as of a visit."""
        return self._own_value("frame", self.root.frame) or self.source.frame_uid

    @property
    def sequence(self) -> str:
        """The sequence: from the table, else the root's patterns, else BIDS, else the header."""
        from_table = self.row.get("sequence") if self.row else ""
        patterns = self.root.sequences.items()
        path = self.file_paths[0]
        from_path = (name for name, pattern in patterns if re.search(pattern, path))
        return from_table or next(
            from_path, self._bids.sequence if self._bids else self.source.sequence
        )

    @property
    def site(self) -> str:
        """The site of the scan, empty where it is unknown."""
        return self._own_value("site", self.root.site)

    @property
    def weight(self) -> float:
        """The sampling weight: that of its root, times its own if the table has one."""
        return self.root.weight * (self.row.weight if self.row else 1.0)

    @property
    def modality(self) -> str:
        """From the table, the root or BIDS; empty where only the file can tell."""
        from_table = self.row.get("modality") if self.row else ""
        return from_table or self.root.modality or (self._bids.modality if self._bids else "")

    @property
    def targets(self) -> dict[str, str]:
        """The known targets that evaluation may predict, by name."""
        rules = {} if self.subject_fault else self.root.targets
        ruled = {name: self._rule_value(rule) for name, rule in rules.items()}
        return {name: text for name, text in ruled.items() if text} | (
            dict(self.row.targets) if self.row else {}
        )

    @cached_property
    def _bids(self) -> BidsImage | None:
        return _bids_image(self.root, self.file_paths[0])

    def _own_value(self, column: str, rule: Rule | None) -> str:
        """The value of a scan whose path fits the root's rules; else empty."""
        return "" if self.subject_fault else self._value_of(column, rule)

    def _value_of(self, column: str, rule: Rule | None) -> str:
        from_table = self.row.get(column) if self.row else ""
        return self._rule_value(rule) if rule and not from_table else from_table

    def _rule_value(self, rule: Rule) -> str:
        values = self.row.values if self.row else None
        return rule.value(
            self.file_paths[0], values, self.id, {"PatientID": self.source.patient_id}
        )


class OrphanLabel(NamedTuple):
    """A label without an image."""

    root: Root
    key: str  # name of the label, and path below its folder
    path: Path


class UnusedFile(NamedTuple):
    """A file that is part of no image of a known format."""

    root: str  # title
    path: Path


class IdleExclude(NamedTuple):
    """A pattern of `exclude` that matches nothing."""

    root: str  # title
    pattern: str


@dataclass(frozen=True)
class Discovery:
    """All candidates, by root and path, the labels that belong to none, and every raw file.

    `unused_files` are those that are part of no image and left out by no setting.
    """

    candidates: tuple[Candidate, ...]
    orphans: tuple[OrphanLabel, ...]
    file_states: Mapping[str, FileState]  # by path
    unused_files: tuple[UnusedFile, ...] = ()
    idle_excludes: tuple[IdleExclude, ...] = ()

    def size_bytes(self, candidate: Candidate) -> int:
        """Bytes of a candidate's files, as they were discovered; at least 1."""
        paths = readers.known_files(candidate.source)
        states = (self.file_states.get(str(path)) for path in paths)
        return max(1, sum(state.size for state in states if state))


class _RootFiles(NamedTuple):
    """What lies below one root."""

    candidates: list[Candidate]
    orphans: list[OrphanLabel]
    unused_files: list[UnusedFile]
    idle_excludes: list[IdleExclude]


def discover_scans(data: Data, study_dir: Path, code: Coder) -> Discovery:
    """Find every image. Raises UserError where a root or a row of the table leads to none.

    Their order depends neither on where roots lie nor on codes.
    """
    table = resolve_path(data.table, study_dir) if data.table else None
    rows = read_table(table, data.targets) if table else []
    lookup = RowLookup(rows)
    if not data.roots and not table:
        raise UserError("data names neither `roots` nor a `table`; say where the scans lie.")
    raw_files = RawFiles()
    found = [_below_root(root, lookup, code, raw_files) for root in data.roots]
    candidates = [each for below in found for each in below.candidates]
    used = {each.row.path for each in candidates if each.row}
    if table:
        found += [_below_row(row, table, code, raw_files) for row in rows if row.path not in used]
    candidates = [each for below in found for each in below.candidates]
    if not candidates:
        raise UserError(f"data.table: {table} has no rows.")
    places = {root.title: place for place, root in enumerate(data.roots)}
    candidates.sort(
        key=lambda each: (
            places.get(each.root.title, len(places)),
            each.relative_path,
            each.source.series,
        )
    )
    orphans = tuple(orphan for below in found for orphan in below.orphans)
    unused = tuple(dict.fromkeys(file for below in found for file in below.unused_files))
    idle = tuple(each for below in found for each in below.idle_excludes)
    return Discovery(tuple(candidates), orphans, raw_files.states, unused, idle)


def count_formats(files: Iterable[UnusedFile]) -> dict[str, dict[str, int]]:
    """The number of unused files by root and suffix."""
    found: dict[str, Counter[str]] = {}
    for file in files:
        found.setdefault(file.root, Counter())[_suffix(file.path.name)] += 1
    return {root: dict(sorted(counts.items())) for root, counts in found.items()}


def _suffix(name: str) -> str:
    """A name's suffix, such as ".zip" or ".nii.zst"; "other" for one that is none, but a word."""
    last = PurePosixPath(name.lower()).suffixes[-2:]
    while last and not KNOWN_SUFFIXES.issuperset(last):
        last.pop(0)
    return "".join(last) or "other"


def check_labels(candidates: Iterable[Candidate]) -> None:
    """Raise UserError for a label of a root that none of its scans has."""
    by_root: dict[str, list[Candidate]] = {}
    for each in candidates:
        by_root.setdefault(each.root.title, []).append(each)
    for root, scans in by_root.items():
        for name, source in scans[0].root.labels.items():
            if not any(each.labels.get(name) for each in scans):
                raise UserError(
                    f"data.roots.labels.{name}: none of the {format_count(len(scans), 'scan')} of"
                    f" root {root}, such as {scans[0].id}, has a file in {source.path}; correct"
                    " `path`, `pattern` or `image_pattern`, or leave the label out."
                )


def _below_root(root: Root, rows: RowLookup, code: Coder, raw_files: RawFiles) -> _RootFiles:
    folder = resolve_path(root.path)
    if not folder.is_dir():
        raise UserError(
            f"data.roots: there is no folder {folder}; correct the path of {root.title}."
        )
    labels = {name: find_labels(source, raw_files) for name, source in root.labels.items()}
    taken = {real_location(path) for each in labels.values() for path in each.files.values()}
    included = [
        [path for path in paths if _is_included(root, path.relative_to(folder).as_posix(), path)]
        for paths in raw_files.below(folder)
    ]
    sources = readers.sources_among(included)
    candidates = []
    for source in sources:
        if not (taken and real_location(source.path) in taken):
            relative = source.path.relative_to(folder).as_posix()
            own = {name: each.label_path(relative) for name, each in labels.items()}
            candidates.append(Candidate(source, root, relative, rows.find(source.path), own, code))
    if not candidates:
        formats = ", ".join(reader.name for reader in READERS)
        suffixes = sorted({_suffix(path.name) for paths in included for path in paths})
        raise UserError(
            f"data.roots: no image was found in {folder}; known formats are {formats}"
            + (", arranged as BIDS" if root.layout == "bids" else "")
            + (f", and its files are {', '.join(suffixes)}." if suffixes else ".")
        )
    unused = dict.fromkeys(path for each in labels.values() for path in each.unused_files)
    unused |= dict.fromkeys(readers.unused_files(included, sources))
    return _RootFiles(
        candidates,
        _orphan_labels(root, labels, candidates),
        [UnusedFile(root.title, path) for path in unused],
        _idle_excludes(root, folder, raw_files),
    )


def _idle_excludes(root: Root, folder: Path, raw_files: RawFiles) -> list[IdleExclude]:
    files = [path for paths in raw_files.below(folder) for path in paths] if root.exclude else []
    names = [path.relative_to(folder).as_posix() for path in files]
    return [
        IdleExclude(root.title, pattern)
        for pattern in root.exclude
        if not any(_is_matched(name, pattern) for name in names)
    ]


def _orphan_labels(
    root: Root, labels: dict[str, LabelFolder], candidates: list[Candidate]
) -> list[OrphanLabel]:
    used = {path for each in candidates for path in each.labels.values()}
    return [
        OrphanLabel(root, f"{name}/{key}", path)
        for name, each in labels.items()
        for key, path in each.files.items()
        if path not in used
    ]


def _is_included(root: Root, relative_path: str, path: Path) -> bool:
    """Whether a file, or a folder that it lies in, matches `include`, and none `exclude`.

    A folder that may not be listed is always included, so that its fault is reported.
    """
    if root.layout == "bids" and not _bids_image(root, relative_path):
        return is_unlistable(path)
    is_excluded = any(_is_matched(relative_path, pattern) for pattern in root.exclude)
    is_wanted = _is_matched(relative_path, root.include) and not is_excluded
    return is_wanted or is_unlistable(path)


def _is_matched(relative_path: str, pattern: str) -> bool:
    """Whether a file, or a folder that it lies in, matches a pattern of `include` or `exclude`."""
    tidy = str(PurePosixPath(compose(pattern)))  # without "./" before it and "/" after it
    path = PurePosixPath(compose(relative_path))
    return any(fnmatch(str(place), tidy) for place in (path, *path.parents[:-1]))


def _bids_image(root: Root, relative_path: str) -> BidsImage | None:
    """What a path says where the root is laid out as BIDS."""
    return parse_bids(relative_path) if root.layout == "bids" else None


def _below_row(row: TableRow, table: Path, code: Coder, raw_files: RawFiles) -> _RootFiles:
    """What a row of the table leads to: a file, or the images of a folder."""
    root = Root(path=str(table.parent), name=table.stem)
    folders = [] if is_unlistable(row.path) else raw_files.below(row.path)
    sources = readers.sources_among(folders) if folders else [Source(row.path)]
    if not sources:
        raise UserError(f"{table}: row {row.number} names no image of a known format.")
    candidates = [
        Candidate(each, root, os.path.relpath(place, table.parent), row, {}, code)
        for each in sources
        for place in [row.path if row.path.is_file() else each.path]
    ]
    unused = readers.unused_files(folders, sources)
    return _RootFiles(candidates, [], [UnusedFile(root.title, path) for path in unused], [])
