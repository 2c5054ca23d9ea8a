"""Every image that a study names, before any is opened: from its roots, and from its table.

A row of the table whose path was also found under a root says more of that scan, or of all scans
in that folder; any other row adds its scans.
"""

import os
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.dataset import Data, Root, resolve
from ssl_pipeline.volumes.folders import is_closed
from ssl_pipeline.volumes.identity import Rule
from ssl_pipeline.volumes.labels import LabelFolder, open_labels
from ssl_pipeline.volumes.origins import Code, Origin
from ssl_pipeline.volumes.readers import READERS, Source
from ssl_pipeline.volumes.table import Row, read_table

MR_CONTRASTS = "T1w T2w FLAIR PDw T2star T2starw PDT2 inplaneT1 inplaneT2 angio UNIT1 T1map T2map"
BIDS = re.compile(
    r"(?P<above>.*/)?sub-(?P<subject>[^/_]+)/(?:ses-[^/]+/)?(?:anat|ct)/[^/]*_(?P<kind>[^/_.]+)\.[^/]+"
)
KINDS = {"ct": "CT", **dict.fromkeys(MR_CONTRASTS.split(), "MR")}


@dataclass(frozen=True)
class Candidate:
    """An image to look at, and all that is said of it from outside its file."""

    source: Source
    root: Root
    relative: str  # path below the root, with "/"
    row: Row | None
    labels: dict[str, Path | None]
    code: Code

    @property
    def id(self) -> str:
        """The scan's code, from the root's name, the path below it, and the series."""
        return self.code(self.root.title, self.relative, self.source.series)

    @property
    def place(self) -> Origin:
        """Where it lies, known before any rule is asked."""
        labels = {name: str(path) for name, path in self.labels.items() if path}
        return Origin(self.id, str(self.source.path), self.source.series, labels=labels)

    @property
    def origin(self) -> Origin:
        """Where it lies and by which name its subject goes there, which results do not say."""
        return replace(self.place, subject=self.subject, person=self.person)

    @property
    def stray(self) -> str:
        """Why it cannot be told who was scanned, where a rule should tell; empty where it can."""
        rule = self.root.subject
        if rule is None or (self.row and self.row.get("subject")):
            return ""
        return rule.misfit(self.relative)

    @cached_property
    def person(self) -> str:
        """Who was scanned: the table's word, else the rule's, else BIDS's, else empty."""
        if self.stray:
            return ""
        named = _bids(self.root, self.relative)
        return self._said("subject", self.root.subject) or (named["subject"] if named else "")

    @property
    def subject(self) -> str:
        """The code of this name; empty where nobody says."""
        return self.code("subject", self.person) if self.person else ""

    @property
    def site(self) -> str:
        """Where it was scanned, empty where nobody says."""
        return "" if self.stray else self._said("site", self.root.site)

    @property
    def weight(self) -> float:
        """How often it is sampled: the weight of its root, times its own if the table has one."""
        return self.root.weight * (self.row.weight if self.row else 1.0)

    @property
    def modality(self) -> str:
        """What the table, the root or BIDS says; empty where the file must say it."""
        named = _bids(self.root, self.relative)
        told = self.row.get("modality") if self.row else ""
        return told or self.root.modality or (KINDS[named["kind"]] if named else "")

    @property
    def targets(self) -> dict[str, str]:
        """What evaluation may predict, by name; only what is known."""
        rules = {} if self.stray else self.root.targets
        ruled = {name: self._ruled(rule) for name, rule in rules.items()}
        return {name: text for name, text in ruled.items() if text} | (
            self.row.targets if self.row else {}
        )

    def _said(self, column: str, rule: Rule | None) -> str:
        told = self.row.get(column) if self.row else ""
        return self._ruled(rule) if rule and not told else told

    def _ruled(self, rule: Rule) -> str:
        values = self.row.values if self.row else None
        return rule.value(self.relative, values, self.id, {"PatientID": self.source.patient})


class Orphan(NamedTuple):
    """A label without an image."""

    root: Root
    key: str  # name of the label, and path below its folder
    path: Path


@dataclass(frozen=True)
class Found:
    """All candidates, by root and place, and the labels that belong to none."""

    candidates: tuple[Candidate, ...]
    orphans: tuple[Orphan, ...]


def find_candidates(data: Data, study_dir: Path, code: Code) -> Found:
    """Find every image. Raises UserError where a root or a row of the table leads to none.

    Their order depends neither on where roots lie nor on codes.
    """
    table = resolve(data.table, study_dir) if data.table else None
    rows = {row.path: row for row in (read_table(table) if table else [])}
    if not data.roots and not table:
        raise UserError("data names neither `roots` nor a `table`; say where the scans lie.")
    candidates: list[Candidate] = []
    orphans: list[Orphan] = []
    for root in data.roots:
        found, left = _below_root(root, rows, code)
        candidates += found
        orphans += left
    used = {each.row.path for each in candidates if each.row}
    for row in rows.values():
        if table and row.path not in used:
            candidates += _of_row(row, table, code)
    if not candidates:
        raise UserError(f"data.table: {table} has no rows.")
    places = {root.title: place for place, root in enumerate(data.roots)}
    candidates.sort(
        key=lambda each: (
            places.get(each.root.title, len(places)),
            each.relative,
            each.source.series,
        )
    )
    return Found(tuple(candidates), tuple(orphans))


def _below_root(
    root: Root, rows: dict[Path, Row], code: Code
) -> tuple[list[Candidate], list[Orphan]]:
    folder = resolve(root.path)
    if not folder.is_dir():
        raise UserError(
            f"data.roots: there is no folder {folder}; correct the path of {root.title}."
        )
    labels = {name: open_labels(source) for name, source in root.labels.items()}
    taken = {path for each in labels.values() for path in each.files.values()}
    candidates = []
    for source in readers.find(folder):
        relative = source.path.relative_to(folder).as_posix()
        if source.path not in taken and (_wanted(root, relative) or is_closed(source.path)):
            own = {name: each.of_image(relative) for name, each in labels.items()}
            row = _row_of(source.path, rows)
            candidates.append(Candidate(source, root, relative, row, own, code))
    if not candidates:
        formats = ", ".join(reader.name for reader in READERS)
        raise UserError(
            f"data.roots: no image was found in {folder}; known formats are {formats}"
            + (", arranged as BIDS." if root.layout == "bids" else ".")
        )
    return candidates, _orphans(root, labels, candidates)


def _orphans(
    root: Root, labels: dict[str, LabelFolder], candidates: list[Candidate]
) -> list[Orphan]:
    used = {path for each in candidates for path in each.labels.values()}
    return [
        Orphan(root, f"{name}/{key}", path)
        for name, each in labels.items()
        for key, path in each.files.items()
        if path not in used
    ]


def _wanted(root: Root, relative: str) -> bool:
    if root.layout == "bids" and not _bids(root, relative):
        return False
    left_out = any(fnmatch(relative, pattern) for pattern in root.exclude)
    return fnmatch(relative, root.include) and not left_out


def _bids(root: Root, relative: str) -> re.Match[str] | None:
    """What BIDS's naming says of a path, where the root is laid out so and the file is an image."""
    named = BIDS.fullmatch(relative) if root.layout == "bids" else None
    if not named or named["kind"] not in KINDS or "derivatives/" in (named["above"] or ""):
        return None
    return named


def _row_of(path: Path, rows: dict[Path, Row]) -> Row | None:
    """The row of a file, or of the nearest folder above it that has one."""
    return next((rows[place] for place in (path, *path.parents) if place in rows), None)


def _of_row(row: Row, table: Path, code: Code) -> list[Candidate]:
    root = Root(path=str(table.parent), name=table.stem)
    sources = [Source(row.path)] if is_closed(row.path) else readers.find(row.path)
    if not sources:
        raise UserError(f"{table}: row {row.number} names no image of a known format.")
    return [
        Candidate(each, root, os.path.relpath(each.path, table.parent), row, {}, code)
        for each in sources
    ]
