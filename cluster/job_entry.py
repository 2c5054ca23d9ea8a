"""Entry point of a job on a node: a stage under a lease, stopped in time, and requeued.

The grace signal is USR2, before the time limit or at a preemption with grace. submitit would handle
it in a signal handler that runs at any instruction, where no exact checkpoint can be written; it
counts every signal of a job with a limit of 10 min or less as a time-out, of which there may be
few; and it leaves an error behind where SLURM has requeued the job already. Here USR2 is blocked
from the first instruction on (`env --block-signal`, coreutils 8.31), so one that comes during the
imports waits, and worker processes, which inherit the mask, never get it. One thread takes it and
asks the
stage to stop as Ctrl-C would: the stage writes its checkpoint between two steps and ends as
interrupted, and then the job is requeued. TERM means stop and do not come back: SLURM itself sends
it when it requeues (a dead node, a preemption without grace, `scontrol requeue`) or cancels.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ssl_pipeline.io import lease
from ssl_pipeline.io.node_cache import job_cache

INTERRUPTED_EXIT = 3
REQUEUE_ATTEMPTS = 30  # while the controller does not answer; 2 s each


@dataclass(frozen=True)
class JobEntry:
    """The function that submitit calls in every task of a job."""

    work: Callable[[], int]  # the stage; returns the exit code of the command
    out: Path  # the folder that the stage writes to
    max_requeues: int
    scratch_dir: str = ""  # the node's own disk, for copies of what the stage reads

    def __call__(self) -> NoReturn:
        """Run the stage; ends the process with its exit code."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal_received = threading.Event()
        try:
            threading.Thread(
                target=_forward_grace_signal, args=[signal_received], daemon=True
            ).start()
            code = self._run()
        except KeyboardInterrupt:
            code = INTERRUPTED_EXIT
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # our own requeue sends it
        if (
            code == INTERRUPTED_EXIT
            and signal_received.is_set()
            and os.environ["SLURM_PROCID"] == "0"
        ):
            _requeue(self.max_requeues)
        sys.exit(code)

    def _run(self) -> int:
        job, attempt = int(os.environ["SLURM_JOB_ID"]), restart_count()
        print(f"Attempt {attempt} of job {job} on {os.environ['SLURMD_NODENAME']}.", flush=True)
        os.environ.update(distributed_env(os.environ))
        try:
            lease.acquire(self.out, job, attempt)
        except lease.LeaseLostError as error:
            print(error, file=sys.stderr)
            return 2
        with job_cache(self.scratch_dir, str(job)):
            return self.work()


def _forward_grace_signal(signal_received: threading.Event) -> None:
    """Wait for the grace signal, and pass it on as the signal that every stage handles."""
    signal.sigwait({signal.SIGUSR2})
    signal_received.set()
    print("SLURM asks the stage to stop.", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def _requeue(max_requeues: int) -> None:
    if restart_count() >= max_requeues:
        print(
            f"The job was requeued {restart_count()} times, `max_requeues` allows no more.",
            flush=True,
        )
        return
    for _ in range(REQUEUE_ATTEMPTS):
        command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0 or "pending" in done.stderr.lower():
            return
        time.sleep(2)
    print(f"The job could not be requeued: {done.stderr.strip()}", flush=True)


def restart_count() -> int:
    """How often SLURM has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def distributed_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which torch.distributed finds the other tasks; none for a single task."""
    if int(environ.get("SLURM_NTASKS", 1)) == 1:
        return {}
    # Attempts of one job take different ports: an abandoned one may still hold its own.
    port = 20000 + (int(environ["SLURM_JOB_ID"]) * 16 + restart_count()) % 12000
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": environ["SLURM_NTASKS"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "MASTER_ADDR": _first_node(environ),
        "MASTER_PORT": str(port),
    }


def _first_node(environ: Mapping[str, str]) -> str:
    """A name or an address by which all nodes reach the first one.

    Of one node alone it is one that no other machine reaches.
    """
    if environ.get("SLURM_JOB_NUM_NODES") == "1":
        return "127.0.0.1"
    command = ["scontrol", "show", "hostnames", environ["SLURM_JOB_NODELIST"]]
    name = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]
    try:
        socket.gethostbyname(name)
    except OSError:  # names of nodes that are no names of hosts
        return environ["SLURM_LAUNCH_NODE_IPADDR"]
    return name
