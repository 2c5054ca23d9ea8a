"""Dask workers that come from elsewhere, die in the middle of their work, and come again."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import as_completed
from pathlib import Path

import pytest
from distributed import Client, Security

from cluster.credentials import credentials_folder, new_credentials, read_credentials
from cluster.workers import Dask, dask_client
from ssl_pipeline.errors import UserError


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


def start_remote_worker(client, folder, node="far"):
    """A process with one worker, as a further node of a job has it; waits until it takes part."""
    wait_until(lambda: not has_worker(client, f"{node}-0"))
    (credentials,) = folder.glob(".tmp-tls-*")
    there = [client.scheduler.address, "1", "1", str(credentials)]
    command = [sys.executable, "-m", "cluster.workers", *there]
    environment = {**os.environ, "SLURMD_NODENAME": node}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    wait_until(lambda: has_worker(client, f"{node}-0"))
    return process


def test_workers_come_and_go_and_every_task_is_done(tmp_path):
    with dask_client(Dask(workers=2, memory_gib=1), 90, tmp_path) as (client, workers):
        assert workers == 2
        first = start_remote_worker(client, tmp_path)
        executor = client.get_executor(pure=False)
        done = []
        for future in as_completed([executor.submit(slow_task, number) for number in range(60)]):
            done.append(future.result())
            if len(done) == 15:  # all of a place
                first.kill()
            if len(done) == 20:  # one worker, which its nanny starts again
                os.kill(next(pid for _, name, pid in done if name == "0"), signal.SIGKILL)
        second = start_remote_worker(client, tmp_path)
        third = start_remote_worker(client, tmp_path, "further")
        done += executor.map(slow_task, range(60, 90))
        third.communicate(b"over\n", timeout=30)
    assert sorted(number for number, *_ in done) == list(range(90))
    assert len({pid for _, name, pid in done if name == "far-0"}) == 2
    assert third.returncode == 0, "a worker ends at the message"
    assert second.communicate(timeout=30) and second.returncode == 0, "or with its scheduler"
    first.communicate(timeout=30)


def scratch_folder(dask_worker):
    return Path(dask_worker.local_directory)


def page(port, path):
    """The HTTP status of a page of this machine."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return int(connection.recv(100).split()[1])


def test_who_does_not_hold_the_credentials_of_a_run_reaches_no_part_of_it(tmp_path, open_umask):
    with dask_client(Dask(workers=2, memory_gib=1), 9, tmp_path) as (client, _):
        workers = client.scheduler_info()["workers"]
        nannies = [worker["nanny"] for worker in workers.values()]
        listening = [client.scheduler.address, *workers, *nannies]
        assert len(listening) == 5
        for address in listening:
            assert address.startswith("tls://127.0.0.1:")
            for protocol, credentials in (("tcp", Security()), ("tls", new_credentials())):
                with pytest.raises(OSError, match=r"Connection|certificate"):
                    Client(address.replace("tls", protocol), security=credentials, timeout=5)
        for each in (client.scheduler_info(), *workers.values()):
            port = each["services"]["dashboard"]
            assert {page(port, path) for path in ("/status", "/info/main/workers.html")} == {404}
        assert client.submit(int, "1").result() == 1
        made = [folder.parents[1] for folder in client.run(scratch_folder).values()]
        made += tmp_path.glob(".tmp-tls-*")
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700] * 3
    assert not any(folder.exists() for folder in made)


def test_credentials_that_another_user_may_have_written_are_refused(tmp_path):
    with credentials_folder(new_credentials(), tmp_path) as folder:
        assert read_credentials(folder).require_encryption
        folder.chmod(0o770)
        with pytest.raises(UserError, match=f"chmod 700 {folder}"):
            read_credentials(folder)
        folder.chmod(0o700)


def test_one_worker_needs_no_processes(tmp_path):
    for section, tasks in ((Dask(workers=1), 9), (Dask(workers=7), 1), (Dask(workers=7), 0)):
        with dask_client(section, tasks, tmp_path) as (client, workers):
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
