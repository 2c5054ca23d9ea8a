"""Aliases of a registry: names such as `champion` that point to an entry, and can be moved.

Every move of an alias is one more file, `00000003.json`, that is complete before it gets its name
and is never changed; the one with the highest number counts. Only one process can create a file of
a number, with or without locks on the file system (`link` is atomic on NFS too), so of two moves
at once the second is refused, and a process that is killed leaves the alias as it was or as it is
to be. The files are the alias's history.
"""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.io.records import Record, create_record, read_record

MOVE_REMEDY = "copy it again from a backup of the registry"
NUMBER_DIGITS = 8


class AliasMove(Record):
    """One move of an alias."""

    format: Literal[1] = 1
    entry: str  # ID of the entry that it points to from now on
    reason: str
    is_rollback: bool = False  # it takes the move before it back
    previous_sha256: str  # of the file of the move before; empty for the first
    moved_at: str  # UTC, ISO 8601; by the clock of the machine that moved it
    moved_by: str  # account of the operating system


class AliasMovedError(UserError):
    """Another process has moved the alias since it was read."""


def read_moves(alias: Path) -> list[AliasMove]:
    """All moves of the alias in the folder `alias`, the oldest first.

    Raises UserError where one is gone, or differs from what was written.
    """
    moves, sha256 = [], ""
    for path in _move_files(alias):
        if not path.exists():
            raise UserError(f"{path} is gone: {MOVE_REMEDY}.")
        move = read_record(AliasMove, path, MOVE_REMEDY)
        if move.previous_sha256 != sha256:
            raise UserError(f"The move before {path} is not as it was written: {MOVE_REMEDY}.")
        moves.append(move)
        sha256 = sha256_file(path)
    return moves


def current_entry(alias: Path) -> str | None:
    """The ID of the entry that an alias points to; None where there is no such alias."""
    pointed = _stack(read_moves(alias))
    return pointed[-1] if pointed else None


def move_alias(alias: Path, entry: str, expected: str | None, reason: str) -> None:
    """Point the alias to `entry`, if it still points to `expected` (None: to nothing).

    Raises AliasMovedError where it does not.
    """
    _append_move(alias, entry, expected, reason, is_rollback=False)


def roll_back(alias: Path, reason: str) -> str:
    """Point the alias to what it pointed to before, however often; returns that entry's ID.

    Raises UserError where there is nothing before.
    """
    pointed = _stack(read_moves(alias))
    if len(pointed) < 2:
        raise UserError(f"{alias.parent.name}@{alias.name} has pointed to no other entry before.")
    _append_move(alias, pointed[-2], pointed[-1], reason, is_rollback=True)
    return pointed[-2]


def _stack(moves: list[AliasMove]) -> list[str]:
    """The entries that it points to now, before that, and so on, the present one last."""
    pointed: list[str] = []
    for move in moves:
        if move.is_rollback:
            pointed.pop()
        else:
            pointed.append(move.entry)
    return pointed


def rolled_back(alias: Path) -> dict[str, str]:
    """The entries that were taken back and not pointed to since, with the reason."""
    pointed: list[str] = []
    found: dict[str, str] = {}
    for move in read_moves(alias):
        if move.is_rollback:
            found[pointed.pop()] = move.reason
        else:
            pointed.append(move.entry)
            found.pop(move.entry, None)
    return found


def _append_move(
    alias: Path, entry: str, expected: str | None, reason: str, *, is_rollback: bool
) -> None:
    alias.mkdir(parents=True, exist_ok=True)
    earlier = _move_files(alias)
    found = current_entry(alias)
    if found != expected:
        raise _moved_error(alias, expected, found)
    move = AliasMove(
        entry=entry,
        reason=reason,
        is_rollback=is_rollback,
        moved_at=datetime.now(UTC).isoformat(timespec="seconds"),
        moved_by=getpass.getuser(),
        previous_sha256=sha256_file(earlier[-1]) if earlier else "",
    )
    try:
        create_record(_move_file(alias, len(earlier) + 1), move)
    except FileExistsError:
        raise _moved_error(alias, expected, current_entry(alias)) from None


def _move_files(alias: Path) -> list[Path]:
    """The files of all moves up to the newest; one that is gone is named too."""
    numbers = [int(path.stem) for path in alias.glob("[0-9]" * NUMBER_DIGITS + ".json")]
    return [_move_file(alias, number) for number in range(1, max(numbers, default=0) + 1)]


def _move_file(alias: Path, number: int) -> Path:
    return alias / f"{number:0{NUMBER_DIGITS}}.json"


def _moved_error(alias: Path, expected: str | None, found: str | None) -> AliasMovedError:
    def word(entry: str | None) -> str:
        return entry[:12] if entry else "nothing"

    return AliasMovedError(
        f"{alias.parent.name}@{alias.name} points to {word(found)} and no longer to "
        f"{word(expected)}, for it was moved meanwhile: compare with that one, and try again."
    )
