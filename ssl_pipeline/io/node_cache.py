"""A cache on a node's local disk, for files that a job reads many times from a shared disk.

A launcher creates a folder for the job (`job_cache`), and readers ask where to read from
(`cached_folder`); an environment variable connects the two, as with the lease. The bytes are the
same, so results are the same; without free space, without a local disk, or without a launcher,
files are read from the shared disk. Tasks of one job on one node share the copies: the first one
copies, the others wait, and the last one to end removes them, by a lock that each holds. A killed
task frees its lock and leaves the folder; the next job of the same user on that node removes it.
The folder's name can be foreseen, and other users may write on that disk too: one that is not this
user's own, or that others can enter, is not used.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_bytes
from ssl_pipeline.io.atomic import atomic_write, file_size
from ssl_pipeline.io.locks import exclusive_lock
from ssl_pipeline.io.permissions import is_private_folder, make_private_folder
from ssl_pipeline.progress import info

CACHE_DIR_VARIABLE = "SSL_PIPELINE_CACHE_DIR"
FOLDER_PREFIX, JOB_LOCK, COPY_LOCK = "ssl-pipeline-", ".job.lock", ".copy.lock"
COPY_THREADS = 4
FREE_SHARE = 0.05  # share of the free space that is left to others


@contextmanager
def job_cache(scratch_dir: str, job: str) -> Iterator[None]:
    """Create a folder for this job's copies below `scratch_dir`, which may hold `$VARIABLES`."""
    held = _acquire_folder(scratch_dir, job) if scratch_dir else None
    if held is None:
        yield
        return
    folder = Path(held.name).parent
    os.environ[CACHE_DIR_VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[CACHE_DIR_VARIABLE]
        _remove_if_unlocked(held, folder)
        held.close()


def cached_folder(folder: Path, names: Iterable[str]) -> Path:
    """Where to read files of `folder` from, by their names in it: its copies, or itself.

    A copy has its name only when it is whole; one of another size is copied again.
    """
    top = os.environ.get(CACHE_DIR_VARIABLE)
    if not top:
        return folder
    copies = Path(top) / folder.name
    try:
        with exclusive_lock(Path(top) / COPY_LOCK):
            sizes = {name: (folder / name).stat().st_size for name in names}
            todo = [name for name, size in sizes.items() if file_size(copies / name) != size]
            needed, free = sum(sizes[name] for name in todo), shutil.disk_usage(top).free
            if needed > free * (1 - FREE_SHARE):
                info(
                    f"{folder} is not copied to {top}: it has {format_bytes(needed)}, and "
                    f"{format_bytes(free)} are free."
                )
                return folder
            _copy(folder, copies, todo)
            if todo:
                info(f"{len(todo)} files of {folder} copied to {top}, {format_bytes(needed)}.")
    except OSError as error:
        info(f"{folder} could not be copied, and is read from there: {error}.")
        return folder
    return copies


def _copy(folder: Path, copies: Path, names: Iterable[str]) -> None:
    def copy(name: str) -> None:
        with atomic_write(copies / name) as temporary:
            shutil.copyfile(folder / name, temporary)

    with ThreadPoolExecutor(COPY_THREADS) as pool:
        for _ in pool.map(copy, names):
            pass


def _acquire_folder(scratch_dir: str, job: str) -> IO[str] | None:
    """The job's folder, by a lock in it that all its tasks share; None, and why, without one."""
    below = Path(os.path.expandvars(scratch_dir))
    if "$" in str(below):
        info(f"Nothing is copied to {scratch_dir}: this node does not set that variable.")
        return None
    folder = below / f"{FOLDER_PREFIX}{job}"
    try:
        _remove_stale_folders(below, folder)
        while True:
            make_private_folder(folder)
            with suppress(FileNotFoundError):
                held = open(folder / JOB_LOCK, "w")  # noqa: SIM115
                fcntl.flock(held, fcntl.LOCK_SH)
                if (folder / JOB_LOCK).stat().st_ino == os.fstat(held.fileno()).st_ino:
                    return held
    except (OSError, UserError) as error:
        info(f"Nothing is copied to {scratch_dir}: {str(error).rstrip('.')}.")
        return None


def _remove_stale_folders(parent: Path, own_folder: Path) -> None:
    """Remove the folders of killed jobs of this user."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            if folder != own_folder and is_private_folder(folder):
                with open(folder / JOB_LOCK, "r+") as held:
                    _remove_if_unlocked(held, folder)


def _remove_if_unlocked(lock: IO[str], folder: Path) -> None:
    """Remove a folder unless another process holds it."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
