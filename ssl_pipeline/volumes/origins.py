"""Whose scans they are and where they came from: one private folder, apart from all results.

Results, logs and messages name scans and subjects by codes: the first 12 hex digits of an
HMAC-SHA256 (RFC 2104) under a salt that stays in this folder, so that nobody finds a name by
hashing a list of names. All studies that share the folder share the codes, and so can tell whether
they share a subject. Codes cannot be made again without the salt. So results carry its fingerprint,
by which a salt that is lost or another is noticed; it is never replaced.
"""

import fcntl
import hashlib
import hmac
import re
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline import atomic
from ssl_pipeline.errors import UserError, nearest
from ssl_pipeline.records import from_table, to_table
from ssl_pipeline.volumes.readers import Source

Code = Callable[..., str]  # words to a code of 12 hex digits
DIGITS = 12
SALT_BYTES = 32
OTHERS = stat.S_IRWXG | stat.S_IRWXO
FIELDS = ("id", "path", "series", "subject", "person", "labels")
SCHEMA = pa.schema(dict.fromkeys(FIELDS, pa.string()))
OBJECTS = ("labels",)


@dataclass(frozen=True)
class Origin:
    """Where one scan lies, and who was scanned."""

    id: str  # the scan's code
    path: str  # file, or folder of a DICOM series
    series: str = ""
    subject: str = ""  # its code
    person: str = ""  # as the files or the table name the subject
    labels: Mapping[str, str] = field(default_factory=dict)  # files, by the label's name

    @property
    def source(self) -> Source:
        """What a reader reads it from."""
        return Source(Path(self.path), self.series)


def coder(salt: bytes) -> Code:
    """Codes under a salt; the same words have the same code."""

    def code(*words: str) -> str:
        return hmac.digest(salt, "\n".join(words).encode(), "sha256").hex()[:DIGITS]

    return code


class Origins:
    """The origins of one study's scans, in the private folder that it may share with others."""

    def __init__(self, private: Path, study: str) -> None:
        self.private, self.folder = private, private / study
        self.table, self.listing = self.folder / "origins.parquet", self.folder / "listing.json"
        self.files = (self.table, self.listing)

    def open(self, fingerprint: str) -> None:
        """Make the folder and the salt, where results carry no fingerprint yet.

        Raises UserError for a salt that is lost or another one, and for a folder that others can
        look into.
        """
        self.private.mkdir(stat.S_IRWXU, parents=True, exist_ok=True)
        self.folder.mkdir(exist_ok=True)
        with open(self.private / ".lock", "a") as lock:  # two studies may begin at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._salt.exists():
                self._begin(fingerprint)
        if stat.S_IMODE(self.private.stat().st_mode) & OTHERS:
            raise UserError(f"Others may look into {self.private}: `chmod 700 {self.private}`.")
        self.check(fingerprint)

    def _begin(self, fingerprint: str) -> None:
        """Make the salt, where none was ever used."""
        if fingerprint or any(self.private.glob("*/origins.parquet")):
            raise UserError(
                f"{self._salt} is lost, by which results know their subjects: put it back from a "
                "backup, or give the study a new `output` and a new `private` folder."
            )
        atomic.write_text(self._salt, secrets.token_hex(SALT_BYTES))

    def check(self, fingerprint: str) -> None:
        """Raises UserError where results that carry this fingerprint were made with another salt.

        None is compared with results that carry none.
        """
        if fingerprint and fingerprint != self.fingerprint:
            raise UserError(
                f"{self._salt} is not the salt with which the results were made, so their subjects "
                "cannot be told apart: put that one back, or give the study a new `output`."
            )

    @property
    def _salt(self) -> Path:
        return self.private / "salt"

    @cached_property
    def _secret(self) -> bytes:
        try:
            return bytes.fromhex(self._salt.read_text())
        except FileNotFoundError:
            raise UserError(
                f"{self._salt} is lost, by which results know their subjects: put it back."
            ) from None

    @property
    def fingerprint(self) -> str:
        """By which the salt is known again; nothing can be learned from it."""
        return hashlib.sha256(b"fingerprint" + self._secret).hexdigest()[:16]

    @property
    def code(self) -> Code:
        """The codes of this folder."""
        return coder(self._secret)

    def write(self, origins: Sequence[Origin]) -> None:
        """Keep all origins of the study's scans."""
        with atomic.replacing(self.table) as temporary:
            pq.write_table(to_table(origins, SCHEMA, OBJECTS), temporary)
        self.__dict__.pop("all", None)

    @cached_property
    def all(self) -> Mapping[str, Origin]:
        """What `write` kept, by the scan's id. Raises UserError where it is not there."""
        if not self.table.exists():
            raise UserError(f"{self.table} is not there: run the stage inventory again.")
        table = pq.read_table(self.table)
        return {origin.id: origin for origin in from_table(table, Origin, OBJECTS, ())}

    def label(self, scan: str, name: str) -> Path:
        """The file of a scan's label. Raises UserError where there is none."""
        origin = self.all.get(scan)
        if origin is None or not origin.labels.get(name):
            raise UserError(f"The label {name} of {scan} has no file: run the inventory again.")
        return Path(origin.labels[name])

    def concealed(self, text: str) -> str:
        """A text in which the scans' paths, and what follows them, give way to the scans' ids."""
        if not self.table.exists():
            return text
        places = {
            path: name
            for name, origin in self.all.items()
            for path in (origin.path, *origin.labels.values())
            if path in text
        }
        for path in sorted(places, key=len, reverse=True):
            text = re.sub(re.escape(path) + r"[^'\"\n]*", places[path], text)
        return text

    def of(self, code: str) -> Mapping[str, Origin]:
        """The scans of this id, or of the subject of this code. Raises UserError for neither."""
        found = {
            name: origin for name, origin in self.all.items() if code in (name, origin.subject)
        }
        if not found:
            near = nearest(code, self.all) if self.all else ""
            tail = f" {near}" if near.startswith("did") else ""
            raise UserError(f"No scan and no subject of this study is called {code}.{tail}")
        return found
