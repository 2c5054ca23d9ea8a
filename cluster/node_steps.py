"""Job steps on the further nodes of a job: commands that are kept running there.

A job of a stage that runs in one process may ask for several nodes; the process runs in a step of
the first one, and has steps of its own on the others. Such a job is submitted with `--no-kill`, so
SLURM takes a lost node out of it and lets the rest go on. That holds for the first node too, whose
loss leaves a job that does nothing until its time limit: what runs on the others sees to that, as
a launcher does that follows the job, and sends it back to the queue.
"""

import os
import platform
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cluster import slurm
from ssl_pipeline.environment import read_number

RESTART_DELAY_S = 5.0  # before a command that has ended is started again
GRACE_S = 10.0  # to end by itself
# Sent on standard input: a signal to srun would leave lines of errors in the log.
END_MESSAGE = "over\n"


def node_name() -> str:
    """The name of this node."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


def allocated_resources(cores: int, memory_gib: float) -> tuple[int, float]:
    """Of a machine's cores and memory in GiB, those that the job may use; all outside of a job."""
    if not os.environ.get("SLURM_JOB_ID"):
        return cores, memory_gib
    asked_cores = read_number("SLURM_CPUS_PER_TASK", cores, 1)
    asked_gib = read_number("SLURM_MEM_PER_NODE", memory_gib * 1024, 1.0) / 1024
    return min(cores, asked_cores), min(memory_gib, asked_gib)


def other_nodes() -> list[str]:
    """The nodes of this job that this step does not run on; none outside of a job.

    Nor where SLURM's commands are not, as in a container that was handed a job's variables.
    """
    mine, all_of_job = (os.environ.get(f"SLURM_{of}_NODELIST") for of in ("STEP", "JOB"))
    if not mine or not all_of_job or not slurm.has_commands():
        return []
    ours = slurm.hostnames(all_of_job)
    return [node for node in ours if node not in slurm.hostnames(mine)]


def address_for(node: str) -> str:
    """The address of this machine by which another node reaches it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((node, 9))  # sends nothing
        except OSError:  # names of nodes that are no names of hosts
            return os.environ["SLURM_LAUNCH_NODE_IPADDR"]
        return str(probe.getsockname()[0])


@contextmanager
def running_on(nodes: list[str], command: list[str]) -> Iterator[None]:
    """Run a command on each node, again whenever it ends, until the block ends."""
    over = threading.Event()
    keepers = [
        threading.Thread(target=_keep_running, args=(node, command, over), daemon=True)
        for node in nodes
    ]
    for keeper in keepers:
        keeper.start()
    try:
        yield
    finally:
        over.set()
        for keeper in keepers:
            keeper.join()


def _keep_running(node: str, command: list[str], stop: threading.Event) -> None:
    while not stop.is_set() and _is_in_job(node):
        step = subprocess.Popen(
            _srun_command(node, command), env=_step_environment(), stdin=subprocess.PIPE, text=True
        )
        while step.poll() is None and not stop.wait(0.5):
            pass
        try:
            step.communicate(END_MESSAGE, timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            step.kill()
            step.communicate()
        stop.wait(RESTART_DELAY_S)


def watch_job() -> None:
    """Wait for the end message, and requeue the job if its first node is lost.

    A command on a node ends with this, once its standard input has something, or its work is lost.
    """
    job = os.environ.get("SLURM_JOB_ID")
    while job is not None:
        heard, *_ = select.select([sys.stdin], [], [], RESTART_DELAY_S)
        if heard and os.read(sys.stdin.fileno(), len(END_MESSAGE)):
            return
        with suppress(slurm.SlurmUnavailableError):
            if not slurm.job_state(job).is_active or slurm.requeue_if_headless(job):
                return
        if heard:  # the end of a stream whose other end is lost
            time.sleep(RESTART_DELAY_S)


def _is_in_job(node: str) -> bool:
    """Whether a node still belongs to this job; SLURM takes those out that it lost."""
    try:
        nodes = slurm.run_slurm_command(
            "squeue", "-h", "-j", os.environ["SLURM_JOB_ID"], "-o", "%N"
        )
        return node in slurm.hostnames(nodes.strip())
    except slurm.SlurmUnavailableError:
        return True


def _srun_command(node: str, command: list[str]) -> list[str]:
    """The command as a step on a node, in which the grace signal of the job is blocked."""
    cpus = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    job = os.environ["SLURM_JOB_ID"]
    step = ["srun", f"--jobid={job}", "--nodes=1", "--ntasks=1", f"--cpus-per-task={cpus}"]
    return [*step, f"--nodelist={node}", "env", "--block-signal=USR2", *command]


def _step_environment() -> dict[str, str]:
    """The environment without the variables of the first node's step."""
    return {
        name: os.environ[name]
        for name in os.environ.keys() - set(slurm.outer_variables(os.environ))
    }
