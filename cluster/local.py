"""Dask workers on this machine, one process each; knows nothing of images.

Processes, because reading and decompressing hold Python's lock. No dashboard and no log lines but
errors: progress is the caller's. With one worker no process is started at all; the caller then
works on threads.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import Field

from ssl_pipeline.section import Section

if TYPE_CHECKING:
    from distributed import Client


class Dask(Section):
    """How many worker processes preprocess on one machine."""

    workers: int = Field(
        default=0,
        ge=0,
        description="worker processes; 0 takes one a core, as far as the memory allows",
    )
    memory_gib: float = Field(
        default=8.0, gt=0, description="memory of a worker in GiB; one that needs more is restarted"
    )

    def worker_count(self) -> int:
        """Workers that this machine gets: at least 1."""
        if self.workers:
            return self.workers
        from distributed.system import MEMORY_LIMIT

        by_memory = int(MEMORY_LIMIT / 2**30 // self.memory_gib)
        return max(1, min(len(os.sched_getaffinity(0)), by_memory))


@contextmanager
def dask_client(section: Dask, workers: int) -> "Iterator[Client | None]":
    """A client of so many fresh local workers, closed at the end; None where one is enough."""
    if workers == 1:
        yield None
        return
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=f"{section.memory_gib}GiB",
        dashboard_address="127.0.0.1:0",  # None would warn of a port that another cluster took
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.ERROR,
    )
    with cluster, Client(cluster) as client:
        yield client
