"""Exclusive locks between processes: one file each, which any end of its holder unlocks.

The kernel holds them (flock). Where a file system has no such locks an error is raised: a marker
file in their place would outlive a holder that was killed.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ssl_pipeline.errors import UserError

NO_LOCK_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class NoLocksError(UserError):
    """A file system has no locks."""


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the file `path`, after waiting for any other holder.

    Raises NoLocksError where the file system has none.
    """
    lock = _lock_of(path)
    _acquire(lock, path)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def try_exclusive_lock(path: Path, holder: str) -> Iterator[str | None]:
    """Hold the lock of the file `path` if it is free, with the text `holder` in the file.

    Yields None where it was free, else the text of its present holder, and then holds nothing.
    Raises NoLocksError where the file system has no locks.
    """
    lock = _lock_of(path)
    try:
        _acquire(lock, path, blocking=False)
    except Timeout:
        yield path.read_text().strip()
        return
    try:
        path.write_text(holder)
        yield None
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path, *, blocking: bool = True) -> None:
    try:
        lock.acquire(blocking=blocking)
    except OSError as error:
        if error.errno not in NO_LOCK_ERRNOS:
            raise
        raise NoLocksError(
            f"The file system of {path.parent} has no locks, without which two processes would"
            " spoil each other's files: have it mounted with them (NFS: with lockd), or put the"
            " folder elsewhere."
        ) from None


def _lock_of(path: Path) -> FileLock:
    return FileLock(path, fallback_to_soft=False)
