"""The subjects that an encoder was trained on, stored beside its weights to prevent leakage.

Codes of subjects and scans identify them wherever the salt is the same, which its fingerprint
shows; hashes of voxels do so everywhere. Training subjects of the initial weights are included.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.io import atomic
from ssl_pipeline.io.parquet import read_table
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.volumes.inventory import Scan

FILE_NAME = "training_subjects.parquet"
COLUMNS = ("subject", "scan", "voxel_hash")
SALT_KEY, FORMAT_KEY = b"salt_fingerprint", b"ssl_pipeline_training_subjects"
INHERITED_KEY = b"inherited"
FORMAT_VERSION = b"3"  # of 1 and 2, equal values of another type of number had another hash
# Of an encoder that was initialized from weights: readers that do not know it refuse the file.
INHERITED_FORMAT_VERSION = b"4"


@dataclass(frozen=True)
class TrainingSubjects:
    """Codes of the subjects and scans, hashes of the voxels, and the fingerprint of the salt.

    The rest describes the initial weights: `other_salt_fingerprints` of subjects of whom only
    voxels are known; `is_unknown`, an encoder without such a list; `is_third_party`, weights of
    other software, which never have one.
    """

    subjects: frozenset[str]
    scans: frozenset[str]
    voxel_hashes: frozenset[str]
    salt_fingerprint: str
    other_salt_fingerprints: frozenset[str] = frozenset()
    is_unknown: bool = False
    is_third_party: bool = False

    def overlapping_subjects(self, scans: Iterable[Scan], salt_fingerprint: str) -> set[str]:
        """Training subjects of the encoder among those of an inventory's `scans`.

        A subject is identified by its code, by a scan that belonged to another subject then, or by
        equal voxels; under another salt by voxels alone. Rejected scans count too.
        """
        scans = list(scans)
        found = {scan.subject for scan in scans if scan.voxel_hash in self.voxel_hashes}
        if salt_fingerprint == self.salt_fingerprint:
            found |= self.subjects | {scan.subject for scan in scans if scan.id in self.scans}
        return found - {""}


def write(
    folder: Path,
    cohort: Iterable[str],
    entries: Iterable[Entry],
    salt_fingerprint: str,
    inherited: TrainingSubjects | None = None,
) -> Path:
    """Write the list beside the weights; returns the file.

    `cohort` are the scans of the run, `entries` the catalog entries of at least these;
    `inherited` are the training subjects of the initial weights.
    """
    of = {entry.id: entry for entry in entries}
    rows = [(of[n].subject, n, of[n].voxel_hash) if n in of else ("", n, "") for n in cohort]
    metadata: dict[bytes, bytes] = {SALT_KEY: salt_fingerprint.encode(), FORMAT_KEY: FORMAT_VERSION}
    if inherited:
        rows += _inherited_rows(inherited, salt_fingerprint)
        metadata |= {
            FORMAT_KEY: INHERITED_FORMAT_VERSION,
            INHERITED_KEY: _inherited_metadata(inherited, salt_fingerprint),
        }
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    schema = pa.schema(dict.fromkeys(COLUMNS, pa.string()), metadata=metadata)
    with atomic.atomic_write(folder / FILE_NAME) as temporary:
        pq.write_table(pa.table(list(map(list, columns)), schema=schema), temporary)
    return folder / FILE_NAME


def read(folder: Path) -> TrainingSubjects | None:
    """Read the list; None where there is none, or one of another format."""
    if not (folder / FILE_NAME).exists():
        return None
    remedy = "copy the bundle again from its source, or pretrain again"
    table = read_table(folder / FILE_NAME, remedy, COLUMNS)
    metadata = table.schema.metadata or {}
    if metadata.get(FORMAT_KEY) not in (FORMAT_VERSION, INHERITED_FORMAT_VERSION):
        return None
    subjects, scans, hashes = (frozenset(table[name].to_pylist()) - {""} for name in COLUMNS)
    inherited = json.loads(metadata.get(INHERITED_KEY, b"{}"))
    others = frozenset(inherited.pop("other_salt_fingerprints", ()))
    return TrainingSubjects(
        subjects, scans, hashes, metadata[SALT_KEY].decode(), others, **inherited
    )


def _inherited_rows(
    inherited: TrainingSubjects, salt_fingerprint: str
) -> list[tuple[str, str, str]]:
    """Rows of the initial weights' training subjects: under another salt, voxel hashes alone."""
    rows = [("", "", voxel_hash) for voxel_hash in sorted(inherited.voxel_hashes)]
    if inherited.salt_fingerprint == salt_fingerprint:
        rows += [(subject, "", "") for subject in sorted(inherited.subjects)]
        rows += [("", scan, "") for scan in sorted(inherited.scans)]
    return rows


def _inherited_metadata(inherited: TrainingSubjects, salt_fingerprint: str) -> bytes:
    """Salts and flags of the initial weights, as JSON."""
    others = sorted(
        (inherited.other_salt_fingerprints | {inherited.salt_fingerprint}) - {salt_fingerprint, ""}
    )
    content = {
        "other_salt_fingerprints": others,
        "is_unknown": inherited.is_unknown,
        "is_third_party": inherited.is_third_party,
    }
    return json.dumps(content, sort_keys=True).encode()
