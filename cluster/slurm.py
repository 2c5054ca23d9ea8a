"""State of SLURM jobs: from squeue first, then from accounting.

submitit's own `job.state` is cached (a job that NODE_FAIL sent back to the queue stays NODE_FAIL
for ever), and accounting reports PREEMPTED or NODE_FAIL for seconds while the job already waits to
run again. So a job is active as long as squeue knows it, and only then does sacct, or the
controller's own memory where there is no accounting, say how it ended. A controller that does not
answer is not the end of a job: jobs run on without it.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from ssl_pipeline.errors import UserError

ANSWER_TIMEOUT_S = 60  # how long an answer of SLURM, or its accounting, may take
UNREACHABLE_PATTERN = re.compile(
    r"unable to contact|socket timed out|connection (refused|timed out)|communication|"
    r"zero bytes|unexpected message|not responding|temporarily",
    re.IGNORECASE,
)
INHERITED_VARIABLES = {"SLURM_CONF"}
RANK_VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


class SlurmUnavailableError(Exception):
    """The controller does not answer; jobs run on without it."""


@dataclass(frozen=True)
class JobState:
    """The state of a job: `name` is SLURM's word; `exit_code` and `signal` are how it ended."""

    name: str
    is_active: bool = False
    nodes_or_reason: str = ""  # its nodes, or the reason why it waits
    exit_code: int = 0
    signal: int = 0


def has_commands() -> bool:
    """Whether SLURM's commands are on this machine."""
    return shutil.which("scontrol") is not None


def run_slurm_command(*command: str) -> str:
    """The answer of a SLURM command. Raises SlurmUnavailableError if there is none.

    A job that is not known (any more) is no error: the answer is empty.
    """
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=ANSWER_TIMEOUT_S)
    except FileNotFoundError:
        raise UserError(
            f"There is no {command[0]} here: run this where SLURM's commands are, such as a login "
            "node, or use --profile local."
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmUnavailableError(f"{command[0]} took more than {ANSWER_TIMEOUT_S} s") from None
    if done.returncode and "fatal" in done.stderr:
        raise UserError(f"SLURM's commands do not work here: {' '.join(done.stderr.split())}")
    if done.returncode and "Invalid job id" not in done.stderr:
        raise SlurmUnavailableError(done.stderr.strip())
    return done.stdout


def job_state(job: str) -> JobState:
    """The present state of a job. Raises SlurmUnavailableError if it is unknown."""
    queued = run_slurm_command("squeue", "-h", "-j", job, "-o", "%T|%R").split("\n")
    if queued[0]:  # of an array, what runs tells more than what waits
        line = next((line for line in queued if line.startswith("RUNNING")), queued[0])
        name, where = line.split("|", 1)
        return JobState(
            name, is_active=True, nodes_or_reason="" if "None" in where else where.strip("()")
        )
    return final_state(job)


def array_summary(array: str) -> str:
    """States of the elements of an array that have not ended, such as `2 PENDING, 3 RUNNING`."""
    states = run_slurm_command("squeue", "-h", "-r", "-j", array, "-o", "%T").split()
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def final_state(job: str) -> JobState:
    """The final state of a job that left the queue; SlurmUnavailableError if unknown (yet)."""
    try:
        found = parse_sacct(
            run_slurm_command("sacct", "-nXP", "-j", job, "-o", "state,exitcode,derivedexitcode")
        )
    except (SlurmUnavailableError, UserError):  # a cluster without accounting
        found = None
    found = found or parse_scontrol(run_slurm_command("scontrol", "-o", "show", "job", job))
    if found is None:
        raise SlurmUnavailableError(f"neither accounting nor the controller knows job {job}")
    return found


def parse_sacct(answer: str) -> JobState | None:
    """From `State|ExitCode|DerivedExitCode`, such as `CANCELLED by 0|0:15|0:0`; None if not ended.

    >>> parse_sacct("FAILED|9:0|0:9")
    JobState(name='FAILED', is_active=False, nodes_or_reason='', exit_code=9, signal=9)
    """
    words = answer.strip().split("\n")[-1].split("|")  # a row before it for each node that was lost
    return _parse_state(*words) if len(words) == 3 else None


def parse_scontrol(answer: str) -> JobState | None:
    """From the line of `scontrol -o show job`; None if the job has not ended."""
    found = dict(word.split("=", 1) for word in answer.split() if "=" in word)
    if "JobState" not in found:
        return None
    return _parse_state(found["JobState"], found["ExitCode"], found.get("DerivedExitCode", "0:0"))


def _parse_state(name: str, exit_code: str, derived: str) -> JobState | None:
    name = name.split()[0]
    if name in ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "CONFIGURING", "SUSPENDED"):
        return None
    code, signal = (int(part) for part in exit_code.split(":"))
    return JobState(name, exit_code=code, signal=signal or int(derived.split(":")[1]))


@dataclass(frozen=True)
class JobStatus:
    """A job as `status` shows it."""

    state: str
    is_active: bool
    nodes: str
    elapsed: str


def job_statuses(jobs: list[str]) -> dict[str, JobStatus]:
    """The status of jobs that SLURM knows; empty where there is no SLURM or it does not answer."""
    if not jobs:
        return {}
    many = ",".join(jobs)
    found: dict[str, JobStatus] = {}
    with suppress(SlurmUnavailableError, UserError):
        ended = run_slurm_command("sacct", "-nXP", "-j", many, "-o", "jobid,state,nodelist,elapsed")
        for job, state, nodes, elapsed in (line.split("|") for line in ended.splitlines()):
            found[job] = JobStatus(state.split()[0], False, nodes, elapsed)
    with suppress(SlurmUnavailableError, UserError):
        known = run_slurm_command("squeue", "-h", "--me", "-o", "%A|%T|%N|%M")
        for job, state, nodes, elapsed in (line.split("|") for line in known.splitlines()):
            if job in jobs:
                found[job] = JobStatus(state, True, nodes, elapsed)
    return found


def queued_jobs(name: str) -> list[tuple[str, str]]:
    """Own jobs of this name that have not ended, as (job, comment). Raises SlurmUnavailableError.

    The elements of an array are one job.
    """
    answer = run_slurm_command("squeue", "-h", "--me", "--name", name, "-o", "%F|%k")
    lines = dict.fromkeys(answer.splitlines())
    return [(job, note) for job, note in (line.split("|", 1) for line in lines)]


def hostnames(nodes: str) -> list[str]:
    """The nodes of a host list of SLURM, such as node[1-3]."""
    return run_slurm_command("scontrol", "show", "hostnames", nodes).split()


def requeue_if_headless(job: str) -> bool:
    """Requeue a job that has lost its first node; returns whether it did.

    `--no-kill` has SLURM take a lost node out of a job. It does so with the first one too, where
    the stage was: what is left does nothing until the time limit.
    """
    found = run_slurm_command("squeue", "-h", "-j", job, "-o", "%T|%B|%N").strip()
    state, first, nodes = found.split("|") if found else ("", "", "")
    if state != "RUNNING" or first in hostnames(nodes):
        return False
    run_slurm_command("scontrol", "requeue", job)
    return True


def cancel_job(job: str, grace_s: float) -> None:
    """Cancel a job: signal it to write its checkpoint; end it after `grace_s`, or if it waits."""
    deadline = time.monotonic() + grace_s
    try:
        # Of an array, the elements that would begin now.
        run_slurm_command("scancel", "--quiet", "--state=PENDING", job)
        if job_state(job).name == "RUNNING":
            run_slurm_command("scancel", "--quiet", "--signal=TERM", job)
            while job_state(job).is_active and time.monotonic() < deadline:
                time.sleep(0.5)
        run_slurm_command("scancel", "--quiet", job)
    except SlurmUnavailableError as error:
        raise UserError(
            f"Job {job} could not be cancelled ({error}): `scancel {job}` later."
        ) from None


def outer_variables(names: Iterable[str]) -> list[str]:
    """The variables that a submission must not inherit.

    SBATCH_* of a user's shell beats what a script says, SLURM_* of an outer job leaks into the new
    one's steps, and the ranks of an outer launcher would make one process wait for others.
    """
    ours = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_")
    return [
        n
        for n in names
        if (n.startswith(ours) and n not in INHERITED_VARIABLES) or n in RANK_VARIABLES
    ]


def drop_outer_variables() -> None:
    """Remove the `outer_variables` from this process."""
    for name in outer_variables(list(os.environ)):
        del os.environ[name]
