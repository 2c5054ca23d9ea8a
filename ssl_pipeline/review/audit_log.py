"""The audit trail of a review: an append-only file with one JSON object a line, in a hash chain.

Each line holds the SHA-256 of the line before it, and a small record beside the log, its head, how
many lines and bytes there are and the hash of the last one. So whatever is edited, deleted,
swapped, inserted or cut in the log alone is found. Whoever rewrites log and head together is found
by a head that was written down elsewhere: results carry it.

A decision is saved when `append` returns: the head announces the line, the line is written, the
head counts it, each with its bytes on the disk before the next. A line that was announced and is
not whole was never confirmed, and is removed. The lock is the kernel's, so several processes may
append to one log.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ssl_pipeline.errors import UserError
from ssl_pipeline.io import atomic
from ssl_pipeline.io.locks import exclusive_lock
from ssl_pipeline.io.permissions import private_files
from ssl_pipeline.io.records import Record, read_record
from ssl_pipeline.progress import info
from ssl_pipeline.review.log_entry import LogEntry, ReaderAnswer

LOG_FILE, HEAD_FILE, LOCK_FILE = "review_log.jsonl", "review_log_head.json", ".review_log.lock"
NO_LINE = hashlib.sha256(b"").hexdigest()
REMEDY = "restore the log and its head together from a backup"


class LogHead(Record):
    """How far the log goes: its anchor."""

    format: Literal[1] = 1
    lines: int = 0
    bytes: int = 0
    last: str = NO_LINE  # SHA-256 of the last line
    announced: str = ""  # SHA-256 of a line that is being written


class AuditLog:
    """The log of one study, in a folder that its owner alone can enter."""

    def __init__(self, folder: Path) -> None:
        self.path, self._head_path = folder / LOG_FILE, folder / HEAD_FILE
        self._lock_path = folder / LOCK_FILE

    def append(self, reader: str, answer: ReaderAnswer) -> LogEntry:
        """Add an answer; it is on the disk when this returns.

        Raises OSError where it cannot be saved, as on a full disk: then the log is as before.
        Raises UserError for a log that something else has changed.
        """
        with exclusive_lock(self._lock_path), private_files():
            head = self._mended_head()
            entry = LogEntry(
                **dict(answer),
                number=head.lines + 1,
                time=datetime.now(UTC),
                reader=reader,
                version=metadata.version("ssl-pipeline"),
                previous=head.last,
            )
            line = _as_line(entry)
            self._write_head(head.model_copy(update={"announced": _sha256(line)}))
            try:
                self._write_line(line)
                self._write_head(_head_after(head, line))
            except OSError:
                if self.path.exists():
                    os.truncate(self.path, head.bytes)  # which needs no space
                raise
        return entry

    def read(self) -> tuple[LogEntry, ...]:
        """All entries, after the whole chain was checked; none where there is no log.

        Raises UserError, naming the first line that is not as it was written.
        """
        if not self._head_path.exists() and not self.path.exists():
            return ()
        with exclusive_lock(self._lock_path), private_files():
            head, content = self._head(), self._content()
        if head.announced:  # its writer was killed: what is not confirmed does not count
            head, content = _settled(head, content)
        entries = tuple(self._checked_entries(content[: head.bytes], head))
        if len(content) != head.bytes or len(entries) != head.lines:
            raise self._changed(f"ends behind line {len(entries)}, and had {head.lines} lines")
        return entries

    def check_anchor(self, entries: Sequence[LogEntry], anchor: str) -> None:
        """Raise UserError where its `entries` do not go on from what an earlier `anchor` said."""
        number, _, sha256 = anchor.partition(":")
        hashes = [NO_LINE, *(_sha256(_as_line(entry)) for entry in entries)]
        if not number.isdigit() or hashes[int(number) :][:1] != [sha256]:
            raise self._changed(f"does not go on from the anchor {anchor}")

    def _checked_entries(self, content: bytes, head: LogHead) -> Iterator[LogEntry]:
        previous = NO_LINE
        lines = content.split(b"\n")
        if lines.pop():
            raise self._changed(f"ends in the middle of line {len(lines) + 1}")
        for number, text in enumerate(lines, start=1):
            entry, line = _parse(text), text + b"\n"
            follows = entry and (entry.number, entry.previous) == (number, previous)
            previous = _sha256(line)
            if not entry or not follows or (number == head.lines and previous != head.last):
                raise self._changed(f"is not as it was written at line {number} or before it")
            yield entry

    def _mended_head(self) -> LogHead:
        """The head, after what a killed writer left was counted or removed."""
        head = self._head()
        if head.announced:
            before = self._content()
            head, content = _settled(head, before)
            if len(content) < len(before):
                info(f"{self.path}: a line that was torn and never confirmed was removed.")
                os.truncate(self.path, len(content))
            self._write_head(head)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != head.bytes:
            raise self._changed(f"has {size} bytes, and had {head.bytes}")
        return head

    def _head(self) -> LogHead:
        if self._head_path.exists():
            return read_record(LogHead, self._head_path, REMEDY)
        if self.path.exists() and self.path.stat().st_size:
            raise UserError(f"{self._head_path} is lost, and {self.path} is there: {REMEDY}.")
        return LogHead()

    def _content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def _write_line(self, line: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _write_head(self, head: LogHead) -> None:
        atomic.write_json(self._head_path, head.model_dump())
        folder = os.open(self._head_path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or an older head could come back after a power failure
        finally:
            os.close(folder)

    def _changed(self, how: str) -> UserError:
        return UserError(
            f"{self.path} {how}: lines were changed, added or removed by something else; {REMEDY}."
        )


def anchor_of(entries: Sequence[LogEntry]) -> str:
    """Number and hash of the last line, by which a later log is known to go on from this one."""
    return f"{len(entries)}:{_sha256(_as_line(entries[-1])) if entries else NO_LINE}"


def _settled(head: LogHead, content: bytes) -> tuple[LogHead, bytes]:
    """Head and content without an announcement: the line counts if it is whole, else is left out.

    Content that ends before the confirmed lines do is returned as it is.
    """
    line = content[head.bytes :]
    if _sha256(line) == head.announced:
        return _head_after(head, line), content
    return head.model_copy(update={"announced": ""}), content[: head.bytes]


def _head_after(head: LogHead, line: bytes) -> LogHead:
    return LogHead(lines=head.lines + 1, bytes=head.bytes + len(line), last=_sha256(line))


def _as_line(entry: LogEntry) -> bytes:
    content = entry.model_dump(mode="json")
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> LogEntry | None:
    try:
        return LogEntry.model_validate_json(line)
    except ValidationError:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
