"""Whom an encoder was trained on: it travels with the weights, so that nobody is scored twice over.

Codes of subjects and scans tell it wherever the salt is the same, which its fingerprint says; equal
voxels tell it everywhere. Whom the weights that it started from have seen, it has seen too.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.io import atomic
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.volumes.inventory import Scan

FILE_NAME = "trained_on.parquet"
COLUMNS = ("subject", "scan", "pixels")
SALT_KEY, FORMAT_KEY, INHERITED_KEY = b"salt", b"ssl_pipeline_trained_on", b"start"
FORMAT_VERSION = b"1"
INHERITED_FORMAT_VERSION = (
    b"2"  # of an encoder that began from weights: a reader that knows no such refuses
)


@dataclass(frozen=True)
class TrainingSubjects:
    """Codes of the subjects and scans, hashes of the voxels, and the fingerprint of the salt.

    The rest is of the weights that it started from: `other_salts` of those of whom voxels alone are
    known; `untold`, an encoder that does not say whom it has seen; `foreign`, of other software,
    whose weights say nobody.
    """

    subjects: frozenset[str]
    scans: frozenset[str]
    voxel_hashes: frozenset[str]
    salt_fingerprint: str
    other_salt_fingerprints: frozenset[str] = frozenset()
    is_unknown: bool = False
    is_third_party: bool = False

    def overlapping_subjects(self, scans: Iterable[Scan], salt_fingerprint: str) -> set[str]:
        """The subjects that the encoder has seen, among those of an inventory's `scans`.

        A subject is known by its code, by a scan that was counted as another's then, or by equal
        voxels; under another salt by these alone. Rejected scans tell as well as others.
        """
        known = list(scans)
        of = {scan.subject for scan in known if scan.voxel_hash in self.voxel_hashes}
        if salt_fingerprint == self.salt_fingerprint:
            of |= self.subjects | {scan.subject for scan in known if scan.id in self.scans}
        return of - {""}


def write(
    folder: Path,
    cohort: Iterable[str],
    entries: Iterable[Entry],
    salt_fingerprint: str,
    inherited: TrainingSubjects | None = None,
) -> Path:
    """Say it beside the weights; returns the file.

    `frozen` are the scans that a run began with, `entries` all that are stored, or those of them;
    `start` is what the weights say that it started from.
    """
    of = {entry.id: entry for entry in entries}
    rows = [(of[n].subject, n, of[n].voxel_hash) if n in of else ("", n, "") for n in cohort]
    about: dict[bytes, bytes] = {SALT_KEY: salt_fingerprint.encode(), FORMAT_KEY: FORMAT_VERSION}
    if inherited:
        rows += _inherited_rows(inherited, salt_fingerprint)
        about |= {
            FORMAT_KEY: INHERITED_FORMAT_VERSION,
            INHERITED_KEY: _inherited_metadata(inherited, salt_fingerprint),
        }
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    schema = pa.schema(dict.fromkeys(COLUMNS, pa.string()), metadata=about)
    with atomic.atomic_write(folder / FILE_NAME) as temporary:
        pq.write_table(pa.table(list(map(list, columns)), schema=schema), temporary)
    return folder / FILE_NAME


def read(folder: Path) -> TrainingSubjects | None:
    """What `write` wrote; None where the encoder does not say it, or not so that it can be read."""
    if not (folder / FILE_NAME).exists():
        return None
    table = pq.read_table(folder / FILE_NAME)
    about = table.schema.metadata or {}
    if about.get(FORMAT_KEY) not in (FORMAT_VERSION, INHERITED_FORMAT_VERSION):
        return None
    subjects, scans, pixels = (frozenset(table[name].to_pylist()) - {""} for name in COLUMNS)
    start = json.loads(about.get(INHERITED_KEY, b"{}"))
    start["other_salts"] = frozenset(start.get("other_salts", ()))
    return TrainingSubjects(subjects, scans, pixels, about[SALT_KEY].decode(), **start)


def _inherited_rows(
    inherited: TrainingSubjects, salt_fingerprint: str
) -> list[tuple[str, str, str]]:
    """Rows of those whom the weights before have seen: under another salt, their voxels alone."""
    rows = [("", "", pixels) for pixels in sorted(inherited.voxel_hashes)]
    if inherited.salt_fingerprint == salt_fingerprint:
        rows += [(subject, "", "") for subject in sorted(inherited.subjects)]
        rows += [("", scan, "") for scan in sorted(inherited.scans)]
    return rows


def _inherited_metadata(inherited: TrainingSubjects, salt_fingerprint: str) -> bytes:
    """What else is known of the weights before."""
    others = sorted(
        (inherited.other_salt_fingerprints | {inherited.salt_fingerprint}) - {salt_fingerprint, ""}
    )
    said = {
        "other_salts": others,
        "untold": inherited.is_unknown,
        "foreign": inherited.is_third_party,
    }
    return json.dumps(said, sort_keys=True).encode()
