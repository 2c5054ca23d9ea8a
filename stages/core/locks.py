"""The lock of a stage's folder: one process at a time runs a stage, and its text says which.

By `flock` and not by filelock: where a file system has no locks, that package falls back to a file
which a killed process leaves behind, and its releases before 4 erase the text of the holder when
another process tries.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io import lease
from stages.core.layout import LOCK

LEASE_MARK = ", a job"


@contextmanager
def stage_lock(out: Path, name: str) -> Iterator[None]:
    """Hold the stage's lock, which any end of the process frees.

    An attempt of a job goes on without it: its lease already makes it the only writer, and a
    process that hangs on a lost node would keep the lock for ever.
    """
    with open(out / LOCK, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            if not (lease.is_held() and holder.endswith(LEASE_MARK)):
                raise UserError(
                    f"The stage {name} already runs in {out} ({holder}): "
                    "wait for it, or end that process."
                ) from None
        else:
            if not lease.is_held():
                lease.revoke(out)
            lock.truncate(0)
            mark = LEASE_MARK if lease.is_held() else ""
            lock.write(f"process {os.getpid()} on {os.uname().nodename}{mark}")
            lock.flush()
        yield
