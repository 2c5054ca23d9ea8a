"""Atomic writes of files and folders, and SHA-256 hashes.

Everything is written under a temporary name beside its place and renamed when it is complete, so a
process that is killed at any instruction leaves either the old file or the new one (of a folder
that is replaced, for an instant, neither). Temporary names begin with `.tmp-`;
`remove_temporaries` removes what a killed process left. An attempt that has lost its lease to a
newer one (ssl_pipeline/io/lease.py) renames nothing.
"""

import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.io import lease

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, file or folder, that takes its name at a good end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{uuid.uuid4().hex[:8]}")
    older = temporary.with_name(f"{temporary.name}-older")
    try:
        yield temporary
        lease.check()
        if temporary.is_dir() and path.is_dir():  # no folder can take the name of one with files
            path.rename(older)
        temporary.replace(path)
    finally:
        remove_path(temporary)
        remove_path(older)


def check_writable(path: Path) -> None:
    """Raise UserError where no file of this name can be written, before the work for it begins."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the file to write.")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written, for {nearest} is no folder to write to.")


def remove_path(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left in `folder` under temporary names."""
    for left in folder.glob(f"{TEMPORARY_PREFIX}*"):
        remove_path(left)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` whole, with its bytes on the disk before the name is."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def create_json(path: Path, content: Any) -> None:
    """Write `content` as `write_json` does, unless the name is taken: then FileExistsError.

    Of several processes one alone succeeds, with or without locks: `link` is atomic on NFS too.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    write_json(temporary, content)
    try:
        os.link(temporary, path)
    finally:
        remove_path(temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    write_bytes(path, text.encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table of comma-separated values; a cell that a row lacks stays empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON that a person can read, with sorted keys, so that equal is equal.

    Raises ValueError for NaN and infinity, which JSON does not have: a number that is not defined
    is written as null.
    """
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")


def file_size(path: Path) -> int:
    """Bytes of a file, -1 where it is not there or may not be read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """Hex SHA-256 of anything JSON can say; keys in any order give the same hash."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
