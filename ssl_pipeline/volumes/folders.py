"""Walking folders of raw scans: quick, in a fixed order, and safe from loops.

Hidden files and unfinished ones (`.tmp-`) are passed over. Links to folders are followed, but each
real folder is entered once, and under its own name where it also lies below the root. A link that
leads to nothing is given as a file, so that whoever opens it learns of it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ssl_pipeline.errors import UserError


def walk(root: Path) -> Iterator[list[os.DirEntry[str]]]:
    """The files of each folder below `root`, itself included; files and folders sorted by name.

    Raises UserError where a folder may not be listed.
    """
    links: list[str] = []
    entered: set[tuple[int, int]] = set()
    yield from _below(str(root), entered, links)
    while links:
        yield from _below(links.pop(0), entered, links)


def _below(
    folder: str, entered: set[tuple[int, int]], links: list[str]
) -> Iterator[list[os.DirEntry[str]]]:
    status = Path(folder).stat()
    if (status.st_dev, status.st_ino) in entered:
        return
    entered.add((status.st_dev, status.st_ino))
    entries = _listed(folder)
    yield [entry for entry in entries if is_file(entry) or _leads_nowhere(entry)]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _below(entry.path, entered, links)
        elif entry.is_symlink() and Path(entry.path).is_dir():
            links.append(entry.path)


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to one; a link in a circle is not."""
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError:
        raise UserError(f"{folder}: this folder may not be listed; ask for read access.") from None
    return sorted(shown, key=lambda entry: entry.name)
