"""Copies of files on a node's own disk, for what a job reads again and again from a shared one.

A launcher holds a folder of the job there (`near`), and readers ask where to read from (`nearer`);
between them stands an environment variable, as with the fence. What is read is the same bytes, so
results are the same, and without room, without a disk, or without a launcher it is read where it
lies. Tasks of one job on one node share the copies: the first copies, the others wait for it, and
the last one to end removes them, as the lock that each holds tells. A task that is killed frees its
lock and leaves the folder; the next job of the same user on that node removes it.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ssl_pipeline.atomic import replacing, size_of
from ssl_pipeline.progress import say

NEAR = "SSL_PIPELINE_NEAR"
PREFIX, HELD, COPYING = "ssl-pipeline-", ".held", ".copying"
COPIES_AT_ONCE = 4
SPARED = 0.05  # share of the free space that is left to others


@contextmanager
def near(where: str, job: str) -> Iterator[None]:
    """Have a folder for this job's copies below `where`, a path with this node's variables."""
    held = _hold(where, job) if where else None
    if held is None:
        yield
        return
    folder = Path(held.name).parent
    os.environ[NEAR] = str(folder)
    try:
        yield
    finally:
        del os.environ[NEAR]
        _remove_unheld(held, folder)
        held.close()


def nearer(folder: Path, names: Iterable[str]) -> Path:
    """Where to read files of `folder` from, by their names in it: copies that are near, or itself.

    A copy has its name only when it is whole; one of another size is copied again.
    """
    top = os.environ.get(NEAR)
    if top is None:
        return folder
    copies = Path(top) / folder.name
    try:
        with open(Path(top) / COPYING, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sizes = {name: (folder / name).stat().st_size for name in names}
            todo = [name for name, size in sizes.items() if size_of(copies / name) != size]
            needed, free = sum(sizes[name] for name in todo), shutil.disk_usage(top).free
            if needed > free * (1 - SPARED):
                say(f"{folder} is read where it lies: {_gib(needed)}, and {top} has {_gib(free)}.")
                return folder
            _copy(folder, copies, todo)
            if todo:
                say(f"{len(todo)} files of {folder} copied to {top}, {_gib(needed)}.")
    except OSError as error:
        say(f"{folder} is read where it lies, for it could not be copied: {error}.")
        return folder
    return copies


def _copy(folder: Path, copies: Path, names: Iterable[str]) -> None:
    def copy(name: str) -> None:
        with replacing(copies / name) as temporary:
            shutil.copyfile(folder / name, temporary)

    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        for _ in pool.map(copy, names):
            pass


def _hold(where: str, job: str) -> IO[str] | None:
    """The job's folder, by a lock in it that all its tasks share; None, and why, without one."""
    below = Path(os.path.expandvars(where))
    if "$" in str(below):
        say(f"Nothing is copied to {where}: this node does not set that variable.")
        return None
    folder = below / f"{PREFIX}{job}"
    try:
        _remove_left_behind(below, folder)
        while True:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                held = open(folder / HELD, "w")  # noqa: SIM115
                fcntl.flock(held, fcntl.LOCK_SH)
                if (folder / HELD).stat().st_ino == os.fstat(held.fileno()).st_ino:
                    return held
    except OSError as error:
        say(f"Nothing is copied to {where}: {error}.")
        return None


def _remove_left_behind(below: Path, own: Path) -> None:
    """Remove the folders of killed jobs; those of other users cannot be opened."""
    for folder in below.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder != own:
                with open(folder / HELD, "r+") as held:
                    _remove_unheld(held, folder)


def _remove_unheld(held: IO[str], folder: Path) -> None:
    """Remove a folder unless another process holds it."""
    with suppress(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
