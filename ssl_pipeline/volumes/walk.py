"""Directory walk over raw scans: quick, in a fixed order, and safe from loops.

Hidden files and unfinished ones (`.tmp-`) are skipped. Links to folders are followed, but each real
folder is entered once, and under its own name where it also lies below the root. A link that leads
to nothing, and a folder that may not be listed, are yielded as files, so that opening them reports
the fault.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ssl_pipeline.errors import UserError


class FileState(NamedTuple):
    """Size and times of a file.

    A copy may bring an old modification time with it; the time of the inode's change is the
    system's own, and moves whenever a file is written or replaced.
    """

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        """The state in a file's status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def real_location(path: Path) -> Path:
    """The path of a file with the links of its folders resolved; a link itself keeps its name."""
    return Path(os.path.realpath(path.parent)) / path.name


class RawFiles:
    """Listings of raw folders, each walked once, and the state of every file in them by path."""

    def __init__(self) -> None:
        self.states: dict[str, FileState] = {}
        self._folders: dict[Path, list[list[Path]]] = {}

    def below(self, place: Path) -> list[list[Path]]:
        """The files of each folder below `place`, itself included; of a file, the file alone.

        Raises UserError where `place` may not be listed.
        """
        if place not in self._folders:
            self._folders[place] = [self._record(entries) for entries in _folders_of(place)]
        return self._folders[place]

    def _record(self, entries: list[tuple[Path, os.stat_result]]) -> list[Path]:
        for path, state in entries:
            self.states[str(path)] = FileState.of(state)
        return [path for path, _ in entries]


def _folders_of(place: Path) -> Iterator[list[tuple[Path, os.stat_result]]]:
    if place.is_file():
        yield [(place, place.stat())]
    elif place.is_dir():
        for entries in walk_folders(place):
            # of a link to nothing, the link's own state
            yield [(Path(e.path), e.stat(follow_symlinks=is_file(e))) for e in entries]


def walk_folders(root: Path) -> Iterator[list[os.DirEntry[str]]]:
    """The files of each folder below `root`, itself included; files and folders sorted by name.

    Raises UserError where `root` itself may not be listed.
    """
    if is_unlistable(root):
        raise UserError(f"{root}: this folder may not be listed; ask for read access.")
    links: list[str] = []
    entered: set[tuple[int, int]] = set()
    yield from _walk_below(str(root), entered, links)
    while links:
        yield from _walk_below(links.pop(0), entered, links)


def _walk_below(
    folder: str, entered: set[tuple[int, int]], links: list[str]
) -> Iterator[list[os.DirEntry[str]]]:
    status = Path(folder).stat()
    if (status.st_dev, status.st_ino) in entered:
        return
    entered.add((status.st_dev, status.st_ino))
    entries = _list_entries(folder)
    yield [
        entry
        for entry in entries
        if is_file(entry) or _is_broken_link(entry) or is_unlistable(entry.path)
    ]
    for entry in entries:
        if not _is_folder(entry) or is_unlistable(entry.path):
            continue
        if entry.is_symlink():
            links.append(entry.path)
        else:
            yield from _walk_below(entry.path, entered, links)


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to one; a link in a circle is not."""
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link in a circle is not."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def is_unlistable(path: Path | str) -> bool:
    """Whether a path is a folder that may not be listed."""
    mode = os.R_OK | os.X_OK
    return not os.access(path, mode, effective_ids=True) and Path(path).is_dir()


def _is_broken_link(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()


def _list_entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError:  # permission lost since the check
        shown = []
    return sorted(shown, key=lambda entry: entry.name)
