"""Whom an encoder was trained on: it travels with the weights, so that nobody is scored twice over.

Codes of subjects and scans tell it wherever the salt is the same, which its fingerprint says; equal
voxels tell it everywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline import atomic
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.volumes.inventory import Scan

NAME = "trained_on.parquet"
COLUMNS = ("subject", "scan", "pixels")
SALT, FORMAT = b"salt", b"ssl_pipeline_trained_on"
FORMAT_VERSION = b"1"


@dataclass(frozen=True)
class TrainedOn:
    """Codes of the subjects and scans, hashes of the voxels, and the fingerprint of the salt."""

    subjects: frozenset[str]
    scans: frozenset[str]
    pixels: frozenset[str]
    salt: str

    def seen(self, scans: Iterable[Scan], salt: str) -> set[str]:
        """The subjects that the encoder has seen, among those of an inventory's `scans`.

        A subject is known by its code, by a scan that was counted as another's then, or by equal
        voxels; under another salt by these alone. Rejected scans tell as well as others.
        """
        known = list(scans)
        of = {scan.subject for scan in known if scan.pixels in self.pixels}
        if salt == self.salt:
            of |= self.subjects | {scan.subject for scan in known if scan.id in self.scans}
        return of - {""}


def write(folder: Path, frozen: Iterable[str], entries: Iterable[Entry], salt: str) -> Path:
    """Say it beside the weights; returns the file.

    `frozen` are the scans that a run began with, `entries` those of them that are still stored.
    """
    of = {entry.id: entry for entry in entries}
    rows = [(of[n].subject, n, of[n].pixels) if n in of else ("", n, "") for n in frozen]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    schema = pa.schema(
        dict.fromkeys(COLUMNS, pa.string()), metadata={SALT: salt, FORMAT: FORMAT_VERSION}
    )
    with atomic.replacing(folder / NAME) as temporary:
        pq.write_table(pa.table(list(map(list, columns)), schema=schema), temporary)
    return folder / NAME


def read(folder: Path) -> TrainedOn | None:
    """What `write` wrote; None where the encoder does not say it, or not so that it can be read."""
    if not (folder / NAME).exists():
        return None
    table = pq.read_table(folder / NAME)
    about = table.schema.metadata or {}
    if about.get(FORMAT) != FORMAT_VERSION:
        return None
    subjects, scans, pixels = (frozenset(table[name].to_pylist()) - {""} for name in COLUMNS)
    return TrainedOn(subjects, scans, pixels, about[SALT].decode())
