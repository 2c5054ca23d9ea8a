"""Exclusive locks between processes: one file each, which any end of its holder unlocks.

The kernel holds them (flock). Where a file system has no such locks an error is raised: a marker
file in their place would outlive a holder that was killed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the file `path`, after waiting for any other holder."""
    with _lock_of(path):
        yield


@contextmanager
def try_exclusive_lock(path: Path, holder: str) -> Iterator[str | None]:
    """Hold the lock of the file `path` if it is free, with the text `holder` in the file.

    Yields None where it was free, else the text of its present holder, and then holds nothing.
    """
    lock = _lock_of(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield path.read_text().strip()
        return
    try:
        path.write_text(holder)
        yield None
    finally:
        lock.release()


def _lock_of(path: Path) -> FileLock:
    return FileLock(path, fallback_to_soft=False)
