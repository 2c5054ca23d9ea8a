"""The catalog: a table of all stored volumes, from which training and evaluation choose.

Parquet, in the inventory's order, which depends on no salt: another salt changes names and nothing
else. Equal content gives equal bytes, so that dependent stages see no change.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.io.atomic import atomic_write
from ssl_pipeline.io.parquet import from_table, to_table
from ssl_pipeline.preprocess.prepare import VolumeMeta
from ssl_pipeline.store.layout import VolumeAttributes
from ssl_pipeline.store.volume_store import VolumeStore
from ssl_pipeline.types import Shape, Spacing
from ssl_pipeline.volumes.inventory import Scan

CATALOG_FILE = "catalog.parquet"
FAILURES_FILE = "failed.json"  # the scans that could not be stored, with the reason
CATALOG_VERSION = 6
VERSION_KEY = b"ssl_pipeline_catalog"
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "subject", "visit", "frame", "to_frame")),
        *((name, pa.string()) for name in ("modality", "sequence", "site", "split")),
        ("weight", pa.float64()),
        *((name, pa.string()) for name in ("root", "targets", "labels", "label_versions")),
        ("shape", pa.list_(pa.int64(), 3)),
        ("spacing_mm", pa.list_(pa.float64(), 3)),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("voxel_hash", pa.string()),
        ("meta_json", pa.string()),
    ],
    metadata={VERSION_KEY: str(CATALOG_VERSION)},
)
SCAN_ATTRIBUTES = ("root", "site", "modality", "sequence")  # of every scan, beside its targets
JSON_COLUMNS = ("targets", "labels", "label_versions", "to_frame")
TUPLE_COLUMNS = ("shape", "spacing_mm")


@dataclass(frozen=True)
class Entry:
    """One stored volume."""

    id: str
    subject: str
    visit: str
    frame: str
    to_frame: list[list[float]]  # (4, 4), from its RAS+ mm to those of its frame; [] if equal
    modality: str
    sequence: str
    site: str
    split: str  # "train", "val" or "test"
    weight: float  # in sampling: that of its root, times its own
    root: str
    targets: dict[str, str]
    labels: dict[str, bool]  # whether there is a label of this name
    shape: Shape  # voxels (z, y, x)
    spacing_mm: Spacing  # (z, y, x)
    bytes: int  # of the voxel file
    sha256: str  # of the voxel file
    voxel_hash: str  # hash of the scan's voxels as read, whatever the codec and the code
    meta_json: str
    label_versions: dict[str, dict[str, str]] = field(default_factory=dict)  # as of a Scan

    @cached_property
    def meta(self) -> VolumeMeta:
        """The volume's metadata, parsed on first use."""
        return VolumeMeta.from_json(json.loads(self.meta_json))


# A row of the catalog or of the inventory, which say the same of a scan's metadata.
ScanRow = TypeVar("ScanRow", Entry, Scan)


@dataclass(frozen=True)
class Catalog:
    """All stored volumes, in the inventory's order."""

    entries: tuple[Entry, ...]

    @classmethod
    def build(cls, store: VolumeStore, scans: Iterable[Scan]) -> "Catalog":
        """Catalog of those scans whose volume is complete and made with the store's settings."""
        found = ((scan, store.complete_attributes(scan)) for scan in scans)
        return cls(tuple(_entry(scan, attributes) for scan, attributes in found if attributes))

    @classmethod
    def read(cls, path: Path) -> "Catalog":
        """Read a catalog; UserError where there is none, or one of another version."""
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is no catalog that can be read: preprocess again.") from error
        found = (table.schema.metadata or {}).get(VERSION_KEY, b"none").decode()
        if found != str(CATALOG_VERSION):
            raise UserError(
                f"{path} has catalog version {found}, this version reads {CATALOG_VERSION}: "
                "preprocess again."
            )
        return cls(tuple(from_table(table, Entry, JSON_COLUMNS, TUPLE_COLUMNS)))

    def write(self, path: Path) -> None:
        """Write the catalog."""
        table = to_table(self.entries, SCHEMA, JSON_COLUMNS)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary)

    @cached_property
    def _index(self) -> dict[str, Entry]:
        return {entry.id: entry for entry in self.entries}

    def by_id(self, scan_id: str) -> Entry:
        """The entry of one volume; UserError where it is not in the catalog."""
        try:
            return self._index[scan_id]
        except KeyError:
            raise UserError(
                f"Volume {scan_id} is not among the {len(self.entries)} of the catalog: "
                "preprocess it first."
            ) from None


def scan_attribute(scan: Entry | Scan, name: str) -> str:
    """A scan's attribute by a name of SCAN_ATTRIBUTES or of a target; "" if unknown."""
    return str(getattr(scan, name)) if name in SCAN_ATTRIBUTES else scan.targets.get(name, "")


def check_scan_attribute(
    setting: str, entries: Sequence[ScanRow], name: str, values: Sequence[str] = ()
) -> None:
    """Refuse an attribute or value that no scan has; `setting` names the place in the study."""
    found = {scan_attribute(entry, name) for entry in entries} - {""}
    if not found:
        names = {*SCAN_ATTRIBUTES, *(target for entry in entries for target in entry.targets)}
        known = {each for each in names if any(scan_attribute(entry, each) for entry in entries)}
        raise UserError(f"{setting}: no scan has {name!r}; {suggest_name(name, known)}")
    for value in values:
        if value not in found:
            raise UserError(
                f"{setting}.{name}: no scan has {value!r}; {suggest_name(value, found)}"
            )


def _entry(scan: Scan, attributes: VolumeAttributes) -> Entry:
    return Entry(
        id=scan.id,
        subject=scan.subject,
        visit=scan.visit,
        frame=scan.frame,
        to_frame=scan.to_frame,
        modality=scan.modality,
        sequence=scan.sequence,
        site=scan.site,
        split=scan.split,
        weight=scan.weight,
        root=scan.root,
        targets=dict(scan.targets),
        labels=dict(scan.labels),
        shape=attributes.meta.shape,
        spacing_mm=attributes.meta.spacing_mm,
        bytes=attributes.bytes,
        sha256=attributes.sha256,
        voxel_hash=scan.voxel_hash,
        meta_json=json.dumps(attributes.meta.to_json(), sort_keys=True),
        label_versions=scan.label_versions,
    )
