"""Dask workers that come from elsewhere, die in the middle of their work, and come again."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import as_completed

from cluster.workers import Dask, dask_client


def slow_task(number):
    from distributed import get_worker

    time.sleep(0.1)
    return number, str(get_worker().name), os.getpid()


def has_worker(client, name):
    return name in {str(worker["name"]) for worker in client.scheduler_info()["workers"].values()}


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_remote_worker(client, node="far"):
    """A process with one worker, as a further node of a job has it; waits until it takes part."""
    wait_until(lambda: not has_worker(client, f"{node}-0"))
    command = [sys.executable, "-m", "cluster.workers", client.scheduler.address, "1", "1"]
    environment = {**os.environ, "SLURMD_NODENAME": node}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    wait_until(lambda: has_worker(client, f"{node}-0"))
    return process


def test_workers_come_and_go_and_every_task_is_done():
    with dask_client(Dask(workers=2, memory_gib=1), 90) as (client, workers):
        assert workers == 2
        first = start_remote_worker(client)
        executor = client.get_executor(pure=False)
        done = []
        for future in as_completed([executor.submit(slow_task, number) for number in range(60)]):
            done.append(future.result())
            if len(done) == 15:  # all of a place
                first.kill()
            if len(done) == 20:  # one worker, which its nanny starts again
                os.kill(next(pid for _, name, pid in done if name == "0"), signal.SIGKILL)
        second = start_remote_worker(client)
        third = start_remote_worker(client, "further")
        done += executor.map(slow_task, range(60, 90))
        third.communicate(b"over\n", timeout=30)
    assert sorted(number for number, *_ in done) == list(range(90))
    assert len({pid for _, name, pid in done if name == "far-0"}) == 2
    assert third.returncode == 0, "a worker ends at the message"
    assert second.communicate(timeout=30) and second.returncode == 0, "or with its scheduler"
    first.communicate(timeout=30)


def test_one_worker_needs_no_processes():
    for section, tasks in ((Dask(workers=1), 9), (Dask(workers=7), 1), (Dask(workers=7), 0)):
        with dask_client(section, tasks) as (client, workers):
            assert client is None and workers == 1


def test_as_many_workers_as_the_job_was_given(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    assert Dask(workers=7).worker_count() == 7
    assert Dask(memory_gib=100000).worker_count() == 1
    assert Dask(memory_gib=0.1).worker_count() == cores
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert Dask(memory_gib=0.1).worker_count() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", str(cores))
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1024")
    assert Dask(memory_gib=1).worker_count() == 1
