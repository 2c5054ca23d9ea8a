"""Dask workers: processes of this machine, and in a job of several nodes those of the others too.

Processes, because reading and decompressing hold Python's lock. No dashboard and no log lines but
errors: progress is the caller's. With one worker in all no process is started; the caller then
works on a thread. A worker that dies is started again by its nanny, all those of a further node by
cluster/node_steps.py, and the scheduler gives their tasks to others: a task must bear being
done twice. Scheduler, workers and client accept only the holders of this run's credentials
(cluster/credentials.py), and what workers put on a disk lies in a folder that no other user can
enter: values that are read back from there are unpickled.

All is ONE job: the stage runs in a step on the first node, and each further node has a step of its
own with workers, kept there by the stage. A lost node costs what its workers had in work; the first
one costs an attempt, and stored results stay. Tried and rejected: all tasks in one step, whose
first is the scheduler and the others workers, as dask-mpi does it. Measured on SLURM 22.05: with
one of them killed, the job was FAILED although the others ended well; with one node lost, srun
killed the tasks on the other. Rejected without a trial: workers as jobs of their own, by
dask-jobqueue or an array. They begin with whichever node is free, but are a second kind of job to
be found again, requeued, cancelled and fenced; and dask-jobqueue does not replace a job that died.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cluster import node_steps
from cluster.credentials import credentials_folder, new_credentials, read_credentials
from ssl_pipeline.config.section import Section
from ssl_pipeline.errors import UserError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster, Security

SCHEDULER_TIMEOUT_S = 60  # after which a worker that reaches no scheduler gives up
SCRATCH_PREFIX = "dask-"  # of a folder of workers, in the folder for temporary files
# Dask also starts web servers that tell everybody what it does: these have no page.
NO_PAGES: dict[str, list[str]] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


class Dask(Section):
    """How many worker processes preprocess on one machine."""

    workers: int = Field(
        default=0,
        ge=0,
        description="worker processes of each machine; 0 takes one a core, as far as the memory "
        "allows",
    )
    memory_gib: float = Field(
        default=8.0, gt=0, description="memory of a worker in GiB; one that needs more is restarted"
    )

    def worker_count(self) -> int:
        """Workers that this machine gets, or this job's part of it: at least 1."""
        from distributed.system import MEMORY_LIMIT

        return self.workers_for(
            *node_steps.allocated_resources(len(os.sched_getaffinity(0)), MEMORY_LIMIT / 2**30)
        )

    def workers_for(self, cores: int, memory_gib: float) -> int:
        """Workers for so many cores and so much memory: at least 1."""
        return self.workers or max(1, min(cores, int(memory_gib // self.memory_gib)))


@contextmanager
def dask_client(
    config: Dask, n_tasks: int, shared_folder: Path
) -> "Iterator[tuple[Client | None, int]]":
    """A client of fresh workers for so many tasks, closed at the end, and the number of workers.

    The client is None where one worker is enough. Workers of other nodes read their credentials
    below `shared_folder`. Raises UserError where there can be no credentials.
    """
    here = max(1, min(config.worker_count(), n_tasks))
    nodes = node_steps.other_nodes()[: max(0, -(-n_tasks // here) - 1)]
    if here == 1 and not nodes:
        yield None, 1
        return
    import dask
    from distributed import Client

    _silence_logs()
    credentials = new_credentials()
    host = node_steps.address_for(nodes[0]) if nodes else "127.0.0.1"
    with (
        dask.config.set(NO_PAGES),
        TemporaryDirectory(prefix=SCRATCH_PREFIX) as scratch,
        _local_cluster(config, here, host, credentials, scratch) as cluster,
        Client(cluster) as client,
        credentials_folder(credentials, shared_folder) as folder,
    ):
        there = [cluster.scheduler_address, str(here), str(config.memory_gib), str(folder)]
        command = [sys.executable, "-m", "cluster.workers", *there]
        with node_steps.running_on(nodes, command):
            yield client, here * (1 + len(nodes))


def _local_cluster(
    config: Dask, workers: int, host: str, credentials: "Security", scratch: str
) -> "LocalCluster":
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        memory_limit=f"{config.memory_gib}GiB",
        host=host,
        security=credentials,
        local_directory=scratch,
        dashboard_address="127.0.0.1:0",  # None would warn of a port that another cluster took
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.ERROR,
    )


async def run_workers(
    scheduler: str, workers: int, memory_gib: float, credentials: "Security"
) -> None:
    """Give a scheduler so many workers, until it is gone or standard input, a pipe, says so."""
    import dask
    from distributed import Nanny

    _silence_logs()
    with dask.config.set(NO_PAGES), TemporaryDirectory(prefix=SCRATCH_PREFIX) as scratch:
        nannies = [
            Nanny(
                scheduler,
                nthreads=1,
                name=f"{node_steps.node_name()}-{number}",
                memory_limit=f"{memory_gib}GiB",
                death_timeout=SCHEDULER_TIMEOUT_S,
                security=credentials,
                local_directory=scratch,
                silence_logs=logging.ERROR,
            )
            for number in range(workers)
        ]
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(sys.stdin, over.set)
        await asyncio.gather(*nannies)
        gone: asyncio.Future[Any] = asyncio.gather(*(nanny.finished() for nanny in nannies))
        ended: asyncio.Future[Any] = loop.create_task(over.wait())
        await asyncio.wait([gone, ended], return_when=asyncio.FIRST_COMPLETED)
        loop.remove_reader(sys.stdin)
        await asyncio.gather(*(nanny.close() for nanny in nannies))


def _silence_logs() -> None:
    """No lines of the scheduler or of nannies in this process, those of its last moments too."""
    logging.getLogger("distributed").setLevel(logging.ERROR)


def main(address: str, workers: str, memory_gib: str, folder: str) -> int:
    """Run workers of this node with the credentials in a folder; returns the exit code."""
    try:
        credentials = read_credentials(Path(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    asyncio.run(run_workers(address, int(workers), float(memory_gib), credentials))
    node_steps.watch_job()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
