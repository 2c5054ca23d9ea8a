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

NAME = "trained_on.parquet"
COLUMNS = ("subject", "scan", "pixels")
SALT = b"salt"


@dataclass(frozen=True)
class TrainedOn:
    """Codes of the subjects and scans, hashes of the voxels, and the fingerprint of the salt."""

    subjects: frozenset[str]
    scans: frozenset[str]
    pixels: frozenset[str]
    salt: str

    def seen(self, entries: Iterable[Entry], scored: str, salt: str) -> set[str]:
        """Those of the split `scored` that the encoder has seen, by their subjects' codes.

        A subject is known by its code, by a scan that was counted as another's then, or by equal
        voxels; under another salt by these alone.
        """
        known = list(entries)
        of = {e.subject for e in known if e.pixels in self.pixels}
        if salt == self.salt:
            of |= self.subjects | {e.subject for e in known if e.id in self.scans}
        return {e.subject or e.id for e in known if e.split == scored and e.subject in of}


def write(folder: Path, entries: Iterable[Entry], salt: str) -> Path:
    """Say it beside the weights; returns the file."""
    rows = [(e.subject, e.id, e.pixels) for e in entries]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(dict(zip(COLUMNS, map(list, columns), strict=True)))
    with atomic.replacing(folder / NAME) as temporary:
        pq.write_table(table.replace_schema_metadata({SALT: salt}), temporary)
    return folder / NAME


def read(folder: Path) -> TrainedOn | None:
    """What `write` wrote; None where the encoder does not say it."""
    if not (folder / NAME).exists():
        return None
    table = pq.read_table(folder / NAME)
    subjects, scans, pixels = (frozenset(table[name].to_pylist()) for name in COLUMNS)
    return TrainedOn(subjects - {""}, scans, pixels, (table.schema.metadata or {})[SALT].decode())
