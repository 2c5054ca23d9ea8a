"""Entries of a registry: an encoder with all that tells where it comes from, named by its hash.

An entry is a folder `ID` that is never changed: copies of an encoder bundle and, where its training
is to continue, of a checkpoint; and the record `entry.json`, which holds the hashes of all files.
ID is the SHA-256 of that record, so a change of any byte is noticed.
"""

import getpass
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import TEMPORARY_PREFIX, remove_path, sha256_file
from ssl_pipeline.io.records import Record, RecordPart, read_record, write_record
from ssl_pipeline.registry.promotion import Promotion

ENTRY_RECORD = "entry.json"
ENCODER_FOLDER, CHECKPOINT_FOLDER = "encoder", "checkpoint"
ID_DIGITS, SHORT_ID = 64, 12  # of an ID, and of what tables and sentences show of it
COPY_REMEDY = "copy the entry again from a backup of the registry"


class EntryCohort(RecordPart):
    """Volumes that an encoder was trained on, by the hash of their list."""

    sha256: str
    volumes: int


class EntryContent(RecordPart):
    """What an entry says of its encoder, beyond the files."""

    name: str  # of the family of encoders, such as chest
    parent: str = ""  # ID of the entry that its training continued
    study: str = ""
    configuration: Mapping[str, Any] = Field(default_factory=dict)  # of the study
    training_summary: Mapping[str, Any] = Field(default_factory=dict)
    cohorts: tuple[EntryCohort, ...] = ()  # the newest first
    salt_fingerprint: str = ""
    version: str = ""  # of this software
    git_commit: str = ""
    verdict: str = ""
    reason: str = ""
    promotion: Promotion | None = None  # of an encoder that the gate promoted


class RegistryEntry(Record):
    """The record of an entry."""

    format: Literal[1] = 1
    content: EntryContent
    files: Mapping[str, str]  # SHA-256 by path below the entry
    created_at: str  # UTC, ISO 8601
    created_by: str  # account of the operating system

    @property
    def identity(self) -> tuple[EntryContent, Mapping[str, str]]:
        """What two additions of the same encoder share, whoever added it, and when."""
        return self.content, self.files


def write_entry(entries: Path, content: EntryContent, sources: Mapping[str, Path]) -> str:
    """Copy the files `sources`, by their paths in the entry, into a new entry; return its ID.

    Where the same encoder is there, with the same content, its ID is returned and nothing is added.
    """
    temporary = entries / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        for name, source in sources.items():
            _copy_file(source, temporary / name)
        entry = RegistryEntry(
            content=content,
            files={name: sha256_file(temporary / name) for name in sorted(sources)},
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            created_by=getpass.getuser(),
        )
        for present in entry_folders(entries):
            if read_entry(present).identity == entry.identity:
                return present.name
        write_record(temporary / ENTRY_RECORD, entry)
        identifier = sha256_file(temporary / ENTRY_RECORD)
        temporary.rename(entries / identifier)
        return identifier
    finally:
        remove_path(temporary)


def entry_folders(entries: Path) -> list[Path]:
    """The folders of all entries; none where nothing was added yet."""
    return sorted(entries.glob("[0-9a-f]" * ID_DIGITS))


def read_entry(folder: Path) -> RegistryEntry:
    """The record of an entry. Raises UserError where it is gone, or not as it was written."""
    path = folder / ENTRY_RECORD
    if not path.is_file():
        raise UserError(f"The registry has no entry {folder.name}: {COPY_REMEDY}.")
    if sha256_file(path) != folder.name:
        raise UserError(f"{path} differs from what was written: {COPY_REMEDY}.")
    return read_record(RegistryEntry, path, COPY_REMEDY)


def find_damage(folder: Path) -> Iterator[str]:
    """One sentence for each file of an entry that is gone, changed, or was added later."""
    try:
        expected = read_entry(folder).files
    except UserError as error:
        yield str(error)
        return
    present = set(files_below(folder)) - {ENTRY_RECORD}
    for name, sha256 in expected.items():
        if name not in present:
            yield f"{folder / name} is gone: {COPY_REMEDY}."
        elif sha256_file(folder / name) != sha256:
            yield f"{folder / name} differs from what was written: {COPY_REMEDY}."
    for name in sorted(present - expected.keys()):
        yield f"{folder / name} is no part of its entry: remove it."


def files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, from there, with slashes."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file, whose bytes are on the disk before it returns."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as original, open(target, "wb") as copy:
        shutil.copyfileobj(original, copy)
        copy.flush()
        os.fsync(copy.fileno())
