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

from ssl_pipeline import atomic
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.volumes.inventory import Scan

NAME = "trained_on.parquet"
COLUMNS = ("subject", "scan", "pixels")
SALT, FORMAT, START = b"salt", b"ssl_pipeline_trained_on", b"start"
FORMAT_VERSION = b"1"
STARTED_VERSION = b"2"  # of an encoder that began from weights: a reader that knows no such refuses


@dataclass(frozen=True)
class TrainedOn:
    """Codes of the subjects and scans, hashes of the voxels, and the fingerprint of the salt.

    The rest is of the weights that it started from: `other_salts` of those of whom voxels alone are
    known; `untold`, an encoder that does not say whom it has seen; `foreign`, of other software,
    whose weights say nobody.
    """

    subjects: frozenset[str]
    scans: frozenset[str]
    pixels: frozenset[str]
    salt: str
    other_salts: frozenset[str] = frozenset()
    untold: bool = False
    foreign: bool = False

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


def write(
    folder: Path,
    frozen: Iterable[str],
    entries: Iterable[Entry],
    salt: str,
    start: TrainedOn | None = None,
) -> Path:
    """Say it beside the weights; returns the file.

    `frozen` are the scans that a run began with, `entries` all that are stored, or those of them;
    `start` is what the weights say that it started from.
    """
    of = {entry.id: entry for entry in entries}
    rows = [(of[n].subject, n, of[n].pixels) if n in of else ("", n, "") for n in frozen]
    about: dict[bytes, bytes] = {SALT: salt.encode(), FORMAT: FORMAT_VERSION}
    if start:
        rows += _inherited(start, salt)
        about |= {FORMAT: STARTED_VERSION, START: _start(start, salt)}
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    schema = pa.schema(dict.fromkeys(COLUMNS, pa.string()), metadata=about)
    with atomic.replacing(folder / NAME) as temporary:
        pq.write_table(pa.table(list(map(list, columns)), schema=schema), temporary)
    return folder / NAME


def read(folder: Path) -> TrainedOn | None:
    """What `write` wrote; None where the encoder does not say it, or not so that it can be read."""
    if not (folder / NAME).exists():
        return None
    table = pq.read_table(folder / NAME)
    about = table.schema.metadata or {}
    if about.get(FORMAT) not in (FORMAT_VERSION, STARTED_VERSION):
        return None
    subjects, scans, pixels = (frozenset(table[name].to_pylist()) - {""} for name in COLUMNS)
    start = json.loads(about.get(START, b"{}"))
    start["other_salts"] = frozenset(start.get("other_salts", ()))
    return TrainedOn(subjects, scans, pixels, about[SALT].decode(), **start)


def _inherited(start: TrainedOn, salt: str) -> list[tuple[str, str, str]]:
    """Rows of those whom the weights before have seen: under another salt, their voxels alone."""
    rows = [("", "", pixels) for pixels in sorted(start.pixels)]
    if start.salt == salt:
        rows += [(subject, "", "") for subject in sorted(start.subjects)]
        rows += [("", scan, "") for scan in sorted(start.scans)]
    return rows


def _start(start: TrainedOn, salt: str) -> bytes:
    """What else is known of the weights before."""
    others = sorted((start.other_salts | {start.salt}) - {salt, ""})
    said = {"other_salts": others, "untold": start.untold, "foreign": start.foreign}
    return json.dumps(said, sort_keys=True).encode()
