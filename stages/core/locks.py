"""The lock of a stage's folder: one process at a time runs a stage, and its text says which."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io import lease
from ssl_pipeline.io.locks import try_exclusive_lock
from stages.core.layout import LOCK

LEASE_MARK = ", a job"


@contextmanager
def stage_lock(out: Path, name: str) -> Iterator[None]:
    """Hold the stage's lock, which any end of the process frees.

    An attempt of a job goes on without it: its lease already makes it the only writer, and a
    process that hangs on a lost node would keep the lock for ever.
    """
    mark = LEASE_MARK if lease.is_held() else ""
    own = f"process {os.getpid()} on {os.uname().nodename}{mark}"
    with try_exclusive_lock(out / LOCK, own) as holder:
        if holder is not None and not (lease.is_held() and holder.endswith(LEASE_MARK)):
            raise UserError(
                f"The stage {name} already runs in {out} ({holder}): wait for it, or end that "
                "process."
            )
        if holder is None and not lease.is_held():
            lease.revoke(out)
        yield
