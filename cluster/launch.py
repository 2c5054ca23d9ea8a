"""Launch a stage as one SLURM job: submit it once, attach to it always, follow it to its end.

A job is identified by a name made from the stage's output folder and, in its comment, by the hash
of its inputs and settings. A launcher looks into SLURM's queue first: a job of that name and hash
is followed, whether this process submitted it, one that was killed, or another one; a job for
earlier inputs is asked to stop; only then one is submitted. The query and the submission happen
under a file lock, and where a file system has no locks, `--dependency=singleton` still keeps two
jobs of one name from running at once. The record beside the output is for people, `status` and
`logs`: with it lost, the job is still found. Whether a finished job was for the present inputs is
decided by the stage's own completion record, never by SLURM.

The rule does not use Snakemake's own SLURM executor. Measured: with it, Snakemake killed and
started again submits a second job beside the first one for the same output, and both run to the
end, for its jobs are named by a number that changes with each run. So the rule runs on the login
node and waits; a killed rule loses nothing.
"""

import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cluster import slurm
from cluster.config import JobResources
from cluster.job_entry import INTERRUPTED_EXIT, JobEntry
from cluster.job_result import report_result, strip_noise
from cluster.submission import submit_jobs
from ssl_pipeline.errors import UserError
from ssl_pipeline.io import lease
from ssl_pipeline.io.atomic import write_json
from ssl_pipeline.io.locks import exclusive_lock
from ssl_pipeline.io.permissions import make_private_folder, refuse_open_parent
from ssl_pipeline.io.records import parse_object, read_json_if_whole
from ssl_pipeline.progress import info

JOB_RECORD = "job.json"
SCRIPT_LINK = ".submission_file_*.sh"  # submitit leaves one to the script of each job
SHARD_FOLDER = "shard-{}"  # where an element of an array has its lease
JOB_FILES = (  # files of a stage's folder of jobs
    JOB_RECORD,
    ".lock",
    SCRIPT_LINK,
    "[0-9]*/[0-9]*_*",
    f"{SHARD_FOLDER.format('*')}/{lease.LEASE_FILE}",
)
CONTROLLER_TIMEOUT_S = 1800  # without an answer, after which a launcher gives up; jobs run on
CANCEL_GRACE_S = 120  # how long a cancelled job may take to write its checkpoint
INTERRUPT_SIGNALS = {signal.SIGINT, signal.SIGTERM}
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class StageJob:
    """A stage to run as a job.

    Where its work has `shards`, a job array does these first, and the job, which waits for the end
    of all of them, does what they have left, and merges it.
    """

    name: str  # for people, such as probe-organ
    folder: Path  # record, lock, scripts and logs, in the folder of all jobs; not in the output
    out: Path  # the folder that the stage writes to
    key: str  # hash of its inputs and settings
    work: Callable[[], int]  # the stage, picklable; returns an exit code
    resources: JobResources
    shards: tuple[Callable[[], int], ...] = ()  # of the work, for an array that goes before it
    is_distributed: bool = False  # whether all tasks of the job run it, or the first one alone
    is_detached: bool = False  # whether the job runs on after Ctrl-C

    @property
    def job_name(self) -> str:
        """The name of the job: the same for the same output, and for no other."""
        return _job_name(self.name, self.out)

    @property
    def array_name(self) -> str:
        """The name of the array that goes before it."""
        return f"{self.job_name}-shards"

    @property
    def has_worker_nodes(self) -> bool:
        """Whether it runs on the first of several nodes, and the others are for its workers."""
        return self.resources.nodes > 1 and not self.is_distributed


def launch_job(stage_job: StageJob) -> int:
    """Run the stage as one job and follow it to its end; returns the exit code of the command.

    Raises UserError where SLURM refuses the job or cannot be reached.
    """
    try:
        with _submit_lock(stage_job.folder):
            job = _retry_while_unreachable(lambda: _attach(stage_job))
        state = _follow(stage_job, job)
    except KeyboardInterrupt:
        _handle_interrupt(stage_job)
        return INTERRUPTED_EXIT
    return report_result(
        stage_job.name, job, state, log_path(stage_job.folder, job), stage_job.resources
    )


def log_path(folder: Path, job: str) -> Path:
    """The log file of a job."""
    return folder / job / f"{job}_0_log.out"


def active_jobs(name: str, out: Path) -> list[str]:
    """The jobs of a stage that have not ended. Raises UserError if SLURM does not answer."""
    try:
        return [job for job, _ in slurm.queued_jobs(_job_name(name, out))]
    except slurm.SlurmUnavailableError as error:
        raise UserError(f"SLURM does not say whether {name} runs ({error}): try later.") from None


def previous_job_files(folder: Path) -> list[Path]:
    """Files of a stage's earlier jobs: their folders, and the links into these.

    Empty where it is unknown which job is the newest.
    """
    known = read_job_record(folder)
    if known is None:
        return []
    newest = {known.get("job"), known.get("array")}
    jobs = [path for path in folder.glob("[0-9]*") if path.name.replace("_", "").isdigit()]
    gone = [path for path in sorted(jobs) if path.name.partition("_")[0] not in newest]
    names = {path.name for path in gone}
    return [*gone, *(p for p in folder.glob(SCRIPT_LINK) if p.readlink().parent.name in names)]


def read_job_record(folder: Path) -> dict[str, Any] | None:
    """The newest job of a stage: its number, the hash of its inputs, its launcher and time.

    None where that is unknown, or it is another user's; the job itself is found without it.
    """
    try:
        found = read_json_if_whole(parse_object, folder / JOB_RECORD) or {}
    except PermissionError:
        return None
    return found if {"job", "key", "launcher"} <= found.keys() else None


def _job_name(name: str, out: Path) -> str:
    mark = hashlib.sha256(str(out.absolute()).encode()).hexdigest()[:10]
    return f"{name}-{mark}"


@contextmanager
def _submit_lock(folder: Path) -> Iterator[None]:
    """Let one launcher at a time query and submit; any end of it frees the lock.

    A node unpickles what lies in the folder, maybe hours later, and so runs it. Raises UserError
    where other users can put something else there.
    """
    make_private_folder(folder.parent)
    make_private_folder(folder)
    refuse_open_parent(folder.parent)
    with exclusive_lock(folder / ".lock"):
        yield


def _attach(stage_job: StageJob) -> str:
    """The one job of this stage: one in the queue, or a new one. Raises SlurmUnavailableError."""
    for job, key in slurm.queued_jobs(stage_job.job_name):
        if key == stage_job.key:
            log = log_path(stage_job.folder, job)
            info(f"{stage_job.name}: attached to job {job}, its log is {log}")
            known = read_job_record(stage_job.folder)
            if known is None or known["job"] != job:
                _write_record(stage_job, job, "another", "")
            return job
        info(f"{stage_job.name}: job {job} works on earlier inputs and is asked to stop")
        slurm.cancel_job(job, CANCEL_GRACE_S)
    lease.revoke(stage_job.out)
    array = _find_active_array(stage_job)
    with _signals_blocked():
        name, asked = stage_job.job_name, stage_job.resources
        if stage_job.shards and not array:
            array = _submit_array(stage_job)
        stage = JobEntry(
            stage_job.work, stage_job.out.absolute(), asked.max_requeues, asked.scratch_dir
        )
        job = submit_jobs(
            [stage],
            name,
            stage_job.key,
            stage_job.folder,
            asked,
            first_node_only=stage_job.has_worker_nodes,
            after_job=array,
        )
        _write_record(stage_job, job, _this_process(), array)
        waits = f", which waits for array {array} of {len(stage_job.shards)}" if array else ""
        log = log_path(stage_job.folder, job)
        info(f"{stage_job.name}: submitted job {job}{waits}; its log is {log}")
    return job


def _find_active_array(stage_job: StageJob) -> str:
    """The array that works on this stage's shards already; one of earlier inputs is cancelled."""
    for array, key in slurm.queued_jobs(stage_job.array_name):
        if key == stage_job.key:
            return array
        slurm.cancel_job(array, CANCEL_GRACE_S)
    return ""


def _submit_array(stage_job: StageJob) -> str:
    """Submit the array that goes before this stage's job; its number."""
    asked = stage_job.resources
    places = [
        (stage_job.folder / SHARD_FOLDER.format(n)).absolute() for n in range(len(stage_job.shards))
    ]
    for place in places:
        lease.revoke(place)
    jobs = [
        JobEntry(work, place, asked.max_requeues, asked.scratch_dir)
        for work, place in zip(stage_job.shards, places, strict=True)
    ]
    return submit_jobs(jobs, stage_job.array_name, stage_job.key, stage_job.folder, asked)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C, which sbatch would get as well, until the job's number is recorded."""
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT_SIGNALS)


def _write_record(stage_job: StageJob, job: str, launcher: str, array: str) -> None:
    known = {"job": job, "key": stage_job.key, "launcher": launcher, "submitted": int(time.time())}
    write_json(stage_job.folder / JOB_RECORD, known | ({"array": array} if array else {}))


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _retry_while_unreachable(query: Callable[[], Answer]) -> Answer:
    """An answer of SLURM, queried again while its controller does not answer."""
    deadline, reported = time.monotonic() + CONTROLLER_TIMEOUT_S, False
    while True:
        try:
            return query()
        except slurm.SlurmUnavailableError as error:
            if not reported:
                info(f"SLURM does not answer ({error}); waiting for it, jobs run on")
                reported = True
            if time.monotonic() > deadline:
                raise UserError(
                    f"SLURM has not answered for {CONTROLLER_TIMEOUT_S // 60} min ({error}): run "
                    "the same command again when it does; jobs run on meanwhile."
                ) from None
            time.sleep(2)


def _follow(stage_job: StageJob, job: str) -> slurm.JobState:
    """Print a job's log and its state, until it has ended."""
    log, said, position = log_path(stage_job.folder, job), "", 0
    began = asked = time.monotonic()
    state, news = _poll(stage_job, job)
    while state.is_active:
        if news != said:
            info(f"{stage_job.name}: job {job} is {news}")
            said = news
        time.sleep(0.5)
        position = _print_more(log, position)
        now = time.monotonic()
        if now - asked > min(30, 1 + (now - began) / 60):  # a queue is not to be asked every second
            asked = now
            state, news = _poll(stage_job, job)
            if stage_job.has_worker_nodes and _retry_while_unreachable(
                lambda: slurm.requeue_if_headless(job)
            ):
                info(f"{stage_job.name}: job {job} lost its first node and goes back to the queue")
    _print_more(log, position)
    return state


def _poll(stage_job: StageJob, job: str) -> tuple[slurm.JobState, str]:
    """The state of a job, and in words; where it waits for its array, the state of that too."""
    state = _retry_while_unreachable(lambda: slurm.job_state(job))
    news = state.name + (f" ({state.nodes_or_reason})" if state.nodes_or_reason else "")
    array = (read_job_record(stage_job.folder) or {}).get("array", "")
    if array and state.nodes_or_reason == "Dependency":
        elements = _retry_while_unreachable(lambda: slurm.array_summary(array))
        news = f"{news}, array {array} has {elements}"
    return state, news


def _print_more(log: Path, position: int) -> int:
    """Print complete lines of a log from a position on; returns the new position."""
    if not log.exists():
        return position
    with open(log, "rb") as file:
        file.seek(position)
        new, _, rest = file.read().rpartition(b"\n")
        for line in strip_noise(new.decode(errors="replace").splitlines()):
            print(line, flush=True)
        return file.tell() - len(rest)


def _handle_interrupt(stage_job: StageJob) -> None:
    """Handle Ctrl-C: cancel the job that this process submitted, or say how to cancel it."""
    known = read_job_record(stage_job.folder)
    if known is None or known["key"] != stage_job.key:
        return
    job = known["job"]
    if known["launcher"] != _this_process() or stage_job.is_detached:
        info(
            f"{stage_job.name}: job {job} runs on; the same command attaches to it again, and "
            f"`scancel {job}` ends it."
        )
        return
    for number in INTERRUPT_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    info(f"{stage_job.name}: job {job} is asked to write its checkpoint, then cancelled")
    slurm.cancel_job(job, CANCEL_GRACE_S)  # first, for it waits for the end of the array
    if known.get("array"):
        slurm.cancel_job(known["array"], CANCEL_GRACE_S)
    info(f"{stage_job.name}: job {job} has ended; run the same command again to go on.")
