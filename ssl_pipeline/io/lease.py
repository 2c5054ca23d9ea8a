"""The write lease of a folder: of all attempts to write in it, only the newest may continue.

A scheduler that loses sight of a node starts its job again elsewhere, while the old processes may
still run behind a broken switch or wake from a hung disk. So an attempt takes a lease, a small file
in the folder that it writes to, and everything that renames or appends checks that the lease is
still its own. A file lock cannot do this: a hanging process keeps it. The lease is passed on in an
environment variable, so that worker processes are checked too; where none is held, as in every run
by hand, a check costs nothing. The microseconds between check and rename are not covered.
"""

import json
import os
from pathlib import Path

from ssl_pipeline.errors import UserError

LEASE_FILE = ".lease.json"
LEASE_VARIABLE = "SSL_PIPELINE_LEASE"


class LeaseLostError(UserError):
    """A newer attempt writes here now."""


def acquire(folder: Path, job: int, attempt: int) -> None:
    """Take the lease of `folder` for this process and its children; earlier holders lose it.

    A greater job number is newer, and so is a greater attempt of the same job. Raises
    LeaseLostError where a newer one holds the lease.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own, holder = (job, attempt), _read_holder(folder)
    if holder and holder > own:
        raise _lease_lost(folder, own, holder)
    temporary = folder / f".tmp-lease-{job}-{attempt}-{os.getpid()}"
    temporary.write_text(json.dumps({"job": job, "attempt": attempt}) + "\n")
    temporary.replace(folder / LEASE_FILE)
    os.environ[LEASE_VARIABLE] = f"{job}.{attempt} {folder.absolute()}"


def check() -> None:
    """Raise LeaseLostError if the lease that this process holds was taken by a newer attempt."""
    held = os.environ.get(LEASE_VARIABLE)
    if not held:
        return
    number, folder = held.split(" ", 1)
    job, attempt = number.split(".")
    own, holder = (int(job), int(attempt)), _read_holder(Path(folder))
    if holder != own:
        raise _lease_lost(Path(folder), own, holder)


def is_held() -> bool:
    """Whether this process writes under a lease."""
    return bool(os.environ.get(LEASE_VARIABLE))


def revoke(folder: Path) -> None:
    """Remove the lease of `folder`, so that its holder can no longer write there.

    A new job begins with it, for another cluster may count its jobs from 1 again.
    """
    (folder / LEASE_FILE).unlink(missing_ok=True)


def _read_holder(folder: Path) -> tuple[int, int] | None:
    """Job and attempt of the lease in a folder; it is read from disk at every call."""
    try:
        lease = json.loads((folder / LEASE_FILE).read_text())
        return int(lease["job"]), int(lease["attempt"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, or a damaged one
        return None


def _lease_lost(
    folder: Path, own: tuple[int, int], holder: tuple[int, int] | None
) -> LeaseLostError:
    newer = f"attempt {holder[1]} of job {holder[0]}" if holder else "another run"
    return LeaseLostError(
        f"Attempt {own[1]} of job {own[0]} was given up and {newer} has taken its place in "
        f"{folder}: this one stops without writing."
    )
