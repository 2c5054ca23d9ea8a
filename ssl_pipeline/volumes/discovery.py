"""Discovery of scans: every image of a study's roots and table, before any is opened.

A row of the table whose path was also found under a root says more of that scan, or of all scans in
that folder; any other row adds its scans.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import normalize_word
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.config import Data, Root, resolve_path
from ssl_pipeline.volumes.label_matching import LabelFolder, find_labels
from ssl_pipeline.volumes.metadata_rules import Rule
from ssl_pipeline.volumes.metadata_table import TableRow, read_table
from ssl_pipeline.volumes.pseudonyms import Coder, Origin
from ssl_pipeline.volumes.readers import READERS, Source
from ssl_pipeline.volumes.walk import FileState, RawFiles, is_unlistable

MR_SUFFIXES = "T1w T2w FLAIR PDw T2star T2starw PDT2 inplaneT1 inplaneT2 angio UNIT1 T1map T2map"
BIDS_PATH = re.compile(
    r"(?P<above>.*/)?sub-(?P<subject>[^/_]+)/(?:ses-[^/]+/)?(?:anat|ct)/[^/]*_(?P<kind>[^/_.]+)\.[^/]+"
)
MODALITY_OF_SUFFIX = {"ct": "CT", **dict.fromkeys(MR_SUFFIXES.split(), "MR")}


@dataclass(frozen=True)
class Candidate:
    """An image to inspect, and its metadata from outside of its file."""

    source: Source
    root: Root
    relative_path: str  # path below the root, with "/"
    row: TableRow | None
    labels: dict[str, Path | None]
    code: Coder

    @property
    def id(self) -> str:
        """The scan's code, from the root's name, the path below it, and the series."""
        return self.code(self.root.title, self.relative_path, self.source.series)

    @property
    def location(self) -> Origin:
        """The files of the scan, known before any rule is applied."""
        labels = {name: str(path) for name, path in self.labels.items() if path}
        return Origin(self.id, str(self.source.path), self.source.series, labels=labels)

    @property
    def origin(self) -> Origin:
        """The files of the scan and the name of its subject, which results do not contain."""
        return replace(self.location, subject=self.subject, subject_name=self.subject_name)

    @property
    def subject_fault(self) -> str:
        """Why the subject rule does not apply to this scan; empty where it does."""
        rule = self.root.subject
        if rule is None or (self.row and self.row.get("subject")):
            return ""
        return rule.pattern_mismatch(self.relative_path)

    @cached_property
    def subject_name(self) -> str:
        """The subject's name: from the table, else the rule, else BIDS, else empty."""
        if self.subject_fault:
            return ""
        named = _match_bids(self.root, self.relative_path)
        return self._value_of("subject", self.root.subject) or (
            normalize_word(named["subject"]) if named else ""
        )

    @property
    def subject(self) -> str:
        """The code of this name; empty where it is unknown."""
        return self.code("subject", self.subject_name) if self.subject_name else ""

    @property
    def site(self) -> str:
        """The site of the scan, empty where it is unknown."""
        return "" if self.subject_fault else self._value_of("site", self.root.site)

    @property
    def weight(self) -> float:
        """The sampling weight: that of its root, times its own if the table has one."""
        return self.root.weight * (self.row.weight if self.row else 1.0)

    @property
    def modality(self) -> str:
        """From the table, the root or BIDS; empty where only the file can tell."""
        named = _match_bids(self.root, self.relative_path)
        from_table = self.row.get("modality") if self.row else ""
        return (
            from_table or self.root.modality or (MODALITY_OF_SUFFIX[named["kind"]] if named else "")
        )

    @property
    def targets(self) -> dict[str, str]:
        """The known targets that evaluation may predict, by name."""
        rules = {} if self.subject_fault else self.root.targets
        ruled = {name: self._rule_value(rule) for name, rule in rules.items()}
        return {name: text for name, text in ruled.items() if text} | (
            self.row.targets if self.row else {}
        )

    def _value_of(self, column: str, rule: Rule | None) -> str:
        from_table = self.row.get(column) if self.row else ""
        return self._rule_value(rule) if rule and not from_table else from_table

    def _rule_value(self, rule: Rule) -> str:
        values = self.row.values if self.row else None
        return rule.value(
            self.relative_path, values, self.id, {"PatientID": self.source.patient_id}
        )


class OrphanLabel(NamedTuple):
    """A label without an image."""

    root: Root
    key: str  # name of the label, and path below its folder
    path: Path


@dataclass(frozen=True)
class Discovery:
    """All candidates, by root and path, the labels that belong to none, and every raw file."""

    candidates: tuple[Candidate, ...]
    orphans: tuple[OrphanLabel, ...]
    file_states: Mapping[str, FileState]  # by path


def discover_scans(data: Data, study_dir: Path, code: Coder) -> Discovery:
    """Find every image. Raises UserError where a root or a row of the table leads to none.

    Their order depends neither on where roots lie nor on codes.
    """
    table = resolve_path(data.table, study_dir) if data.table else None
    rows = {row.path: row for row in (read_table(table) if table else [])}
    if not data.roots and not table:
        raise UserError("data names neither `roots` nor a `table`; say where the scans lie.")
    raw_files = RawFiles()
    candidates: list[Candidate] = []
    orphans: list[OrphanLabel] = []
    for root in data.roots:
        own, unused = _below_root(root, rows, code, raw_files)
        candidates += own
        orphans += unused
    used = {each.row.path for each in candidates if each.row}
    for row in rows.values():
        if table and row.path not in used:
            candidates += _row_candidates(row, table, code, raw_files)
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
    return Discovery(tuple(candidates), tuple(orphans), raw_files.states)


def _below_root(
    root: Root, rows: dict[Path, TableRow], code: Coder, raw_files: RawFiles
) -> tuple[list[Candidate], list[OrphanLabel]]:
    folder = resolve_path(root.path)
    if not folder.is_dir():
        raise UserError(
            f"data.roots: there is no folder {folder}; correct the path of {root.title}."
        )
    labels = {name: find_labels(source, raw_files) for name, source in root.labels.items()}
    taken = {path for each in labels.values() for path in each.files.values()}
    candidates = []
    for source in readers.sources_among(raw_files.below(folder)):
        relative = source.path.relative_to(folder).as_posix()
        if source.path not in taken and (
            _is_included(root, relative) or is_unlistable(source.path)
        ):
            own = {name: each.label_path(relative) for name, each in labels.items()}
            row = _row_of(source.path, rows)
            candidates.append(Candidate(source, root, relative, row, own, code))
    if not candidates:
        formats = ", ".join(reader.name for reader in READERS)
        raise UserError(
            f"data.roots: no image was found in {folder}; known formats are {formats}"
            + (", arranged as BIDS." if root.layout == "bids" else ".")
        )
    return candidates, _orphan_labels(root, labels, candidates)


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


def _is_included(root: Root, relative_path: str) -> bool:
    if root.layout == "bids" and not _match_bids(root, relative_path):
        return False
    left_out = any(fnmatch(relative_path, pattern) for pattern in root.exclude)
    return fnmatch(relative_path, root.include) and not left_out


def _match_bids(root: Root, relative_path: str) -> re.Match[str] | None:
    """The parts of a BIDS path, where the root is laid out so and the file is an image."""
    named = BIDS_PATH.fullmatch(relative_path) if root.layout == "bids" else None
    if (
        not named
        or named["kind"] not in MODALITY_OF_SUFFIX
        or "derivatives/" in (named["above"] or "")
    ):
        return None
    return named


def _row_of(path: Path, rows: dict[Path, TableRow]) -> TableRow | None:
    """The row of a file, or of the nearest folder above it that has one."""
    return next((rows[place] for place in (path, *path.parents) if place in rows), None)


def _row_candidates(
    row: TableRow, table: Path, code: Coder, raw_files: RawFiles
) -> list[Candidate]:
    root = Root(path=str(table.parent), name=table.stem)
    sources = [Source(row.path)]
    if not is_unlistable(row.path):
        sources = readers.sources_among(raw_files.below(row.path))
    if not sources:
        raise UserError(f"{table}: row {row.number} names no image of a known format.")
    return [
        Candidate(each, root, os.path.relpath(each.path, table.parent), row, {}, code)
        for each in sources
    ]
