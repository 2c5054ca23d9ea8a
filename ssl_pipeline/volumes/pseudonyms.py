"""Pseudonyms of scans and subjects, and the private folder that resolves them.

Results, logs and messages name scans and subjects by codes: the first 12 hex digits of an
HMAC-SHA256 (RFC 2104) under a salt that stays in this folder, so that nobody finds a name by
hashing a list of names. All studies that share the folder share the codes, and so can detect a
shared subject. Codes cannot be made again without the salt. Results therefore carry its
fingerprint, by which a lost or different salt is noticed; a salt is never replaced.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.io import atomic
from ssl_pipeline.io.locks import exclusive_lock
from ssl_pipeline.io.parquet import from_table, read_metadata, read_table, to_table
from ssl_pipeline.io.permissions import make_private_folder, private_files
from ssl_pipeline.volumes.readers import Source

Coder = Callable[..., str]  # strings to a code of 12 hex digits
CODE_DIGITS = 12
SALT_BYTES = 32
LOST_SALT_ADVICE = (
    ", by which results know their subjects: put it back from a backup, or begin anew with another"
    " `output` and another `private` folder."
)
FIELDS = ("id", "path", "series", "subject", "subject_name", "labels", "left_out")
SCHEMA = pa.schema(dict.fromkeys(FIELDS, pa.string()))
OWNER_KEY = b"output"
JSON_COLUMNS = ("labels", "left_out")


@dataclass(frozen=True)
class Origin:
    """The files of one scan, and the name of its subject."""

    id: str  # the scan's code
    path: str  # file, or folder of a DICOM series
    series: str = ""
    subject: str = ""  # its code
    subject_name: str = ""  # as the files or the table name the subject
    labels: Mapping[str, str] = field(default_factory=dict)  # files, by the label's name
    left_out: Sequence[str] = ()  # names of files in a DICOM series' folder that it does without

    @property
    def source(self) -> Source:
        """The source that a reader reads it from."""
        return Source(Path(self.path), self.series, left_out=tuple(self.left_out))


def coder(salt: bytes) -> Coder:
    """A function that maps strings to codes under a salt; equal strings get equal codes."""

    def code(*words: str) -> str:
        content = "\n".join(words).encode(errors="surrogateescape")  # names of files are bytes
        return hmac.digest(salt, content, "sha256").hex()[:CODE_DIGITS]

    return code


class PseudonymStore:
    """The origins of one study's scans, in a private folder that several studies may share.

    `output` is the folder of the study's results: another study of the same name is refused.
    """

    def __init__(self, private_folder: Path, study_name: str, output: Path) -> None:
        self.private_folder, self.output = private_folder, output
        self.study_folder = private_folder / study_name
        self.table = self.study_folder / "origins.parquet"
        self.file_hashes = self.study_folder / "file_hashes.json"
        self.unused_files = self.study_folder / "unused_files.txt"
        self.files = (self.table, self.file_hashes, self.unused_files)

    def open(self, salt_fingerprint: str) -> None:
        """Make the folder and the salt, where results carry no fingerprint yet.

        Raises UserError for a lost or different salt, for a folder that is not private, and for one
        that a study of the same name uses.
        """
        make_private_folder(self.private_folder)
        with private_files():
            self.study_folder.mkdir(exist_ok=True)
            with exclusive_lock(self.private_folder / ".lock"):  # two studies may begin at once
                if not self._salt_file.exists():
                    self._create_salt(salt_fingerprint)
        self.refuse_namesake()
        self.check_salt(salt_fingerprint)

    def _create_salt(self, salt_fingerprint: str) -> None:
        """Make the salt, where none was ever used."""
        if salt_fingerprint or any(self.private_folder.glob("*/origins.parquet")):
            raise UserError(f"{self._salt_file} is lost{LOST_SALT_ADVICE}")
        with open(self._salt_file, "x") as file:  # never in place of another
            file.write(secrets.token_hex(SALT_BYTES))
            file.flush()
            os.fsync(file.fileno())

    @property
    def _relative_output(self) -> str:
        """Where the output lies from the private folder: the same when both are moved."""
        return os.path.relpath(self.output, self.private_folder)

    def refuse_namesake(self) -> None:
        """Raise UserError where another study of this name has its paths of origin here."""
        if not self.table.exists():
            return
        try:
            owner = read_metadata(self.table, "").get(OWNER_KEY, b"").decode()
        except UserError:  # damaged, and the inventory writes it again
            return
        if owner not in ("", self._relative_output) and (self.private_folder / owner).exists():
            raise UserError(
                f"{self.study_folder} belongs to the study that writes to"
                f" {self.private_folder / owner}: give this one another `name`, or a `private`"
                " folder of its own."
            )

    def check_salt(self, salt_fingerprint: str) -> None:
        """Raises UserError where results that carry this fingerprint were made with another salt.

        Results that carry none pass.
        """
        if salt_fingerprint and salt_fingerprint != self.salt_fingerprint:
            raise UserError(
                f"{self._salt_file} is not the salt with which the results were made, so their"
                " subjects cannot be matched: put that one back, or give the study a new `output`."
            )

    @property
    def _salt_file(self) -> Path:
        return self.private_folder / "salt"

    @cached_property
    def _salt_bytes(self) -> bytes:
        try:
            secret = bytes.fromhex(self._salt_file.read_text())
        except FileNotFoundError:
            raise UserError(f"{self._salt_file} is lost{LOST_SALT_ADVICE}") from None
        except ValueError:
            secret = b""
        if len(secret) != SALT_BYTES:
            raise UserError(f"{self._salt_file} is damaged{LOST_SALT_ADVICE}")
        return secret

    @property
    def salt_fingerprint(self) -> str:
        """A hash that identifies the salt without revealing it."""
        return hashlib.sha256(b"fingerprint" + self._salt_bytes).hexdigest()[:16]

    @property
    def code(self) -> Coder:
        """The codes of this folder."""
        return coder(self._salt_bytes)

    def write(self, origins: Sequence[Origin]) -> None:
        """Replace the table of all origins of the study's scans."""
        with private_files(), atomic.atomic_write(self.table) as temporary:
            schema = SCHEMA.with_metadata({OWNER_KEY: self._relative_output})
            pq.write_table(to_table(origins, schema, JSON_COLUMNS), temporary)
        self.__dict__.pop("origins", None)

    def write_unused_files(self, paths: Sequence[Path]) -> None:
        """Replace the list of raw files that are part of no image, a path a line."""
        lines = b"".join(os.fsencode(path) + b"\n" for path in paths)
        with private_files():
            atomic.write_bytes(self.unused_files, lines)

    @cached_property
    def origins(self) -> Mapping[str, Origin]:
        """All origins, by the scan's id. Raises UserError where it is not there."""
        if not self.table.exists():
            raise UserError(f"{self.table} is not there: run the stage inventory again.")
        remedy = "remove it, and run the stage inventory again"
        table = read_table(self.table, remedy, ("id", "path"))
        return {origin.id: origin for origin in from_table(table, Origin, JSON_COLUMNS, ())}

    def label_path(self, scan_id: str, name: str) -> Path:
        """The file of a scan's label. Raises UserError where there is none."""
        origin = self.origins.get(scan_id)
        if origin is None or not origin.labels.get(name):
            raise UserError(f"The label {name} of {scan_id} has no file: run the inventory again.")
        return Path(origin.labels[name])

    def redact(self, text: str) -> str:
        """A text in which scans' paths, and what follows them, are replaced by the scans' ids."""
        if not self.table.exists():
            return text
        places = {
            path: name
            for name, origin in self.origins.items()
            for path in (origin.path, *origin.labels.values())
            if path in text
        }
        for path in sorted(places, key=len, reverse=True):
            text = re.sub(re.escape(path) + r"[^'\"\n]*", places[path], text)
        return text

    def origins_of(self, code: str) -> Mapping[str, Origin]:
        """The scans of this id, or of the subject of this code. Raises UserError for neither."""
        found = {
            name: origin for name, origin in self.origins.items() if code in (name, origin.subject)
        }
        if not found:
            near = suggest_name(code, self.origins) if self.origins else ""
            tail = f" {near}" if near.startswith("did") else ""
            raise UserError(f"No scan and no subject of this study is called {code}.{tail}")
        return found
