"""Submit a stage once, attach to it always: one job a stage, whoever asks for it and how often.

A job is known by a name made from the stage's output folder and, in its comment, by the hash of its
inputs and sections. Whoever wants the stage done looks into SLURM's queue first: a job of that name
and hash is followed, whether this process submitted it, one that was killed, or one beside it; a
job for earlier inputs is told to stop; only then one is submitted. The look and the submission
happen under a file lock, and where a file system has no locks, `--dependency=singleton` still keeps
two jobs of one name from running at once. The record beside the output is for people, `status` and
`logs`: with it lost, the job is still found. Whether a finished job answers for the present inputs
is asked of the stage's own completion record, never of SLURM.

The rule does not go through Snakemake's own SLURM executor. Measured: with it, Snakemake killed and
started again submits a second job beside the first one for the same output, and both run to the
end, for its jobs are named by a number that changes with each run. So the rule runs on the login
node and waits; a killed rule loses nothing.
"""

import fcntl
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
from cluster.config import Resources
from cluster.node import INTERRUPTED, Job
from cluster.outcome import conclude, without_noise
from cluster.submission import submit
from ssl_pipeline import fence
from ssl_pipeline.atomic import read_json, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.progress import say

RECORD = "job.json"
LINK = ".submission_file_*.sh"  # submitit leaves one to the script of each job
SHARE = "share-{}"  # where an element of an array has its lease
MAKES = (  # files of a stage's folder of jobs
    RECORD,
    ".lock",
    LINK,
    "[0-9]*/[0-9]*_*",
    f"{SHARE.format('*')}/{fence.LEASE}",
)
AWAY_S = 1800  # how long a controller may be away before a launcher gives up; jobs run on
CHECKPOINT_S = 120  # how long a cancelled job may take to write its checkpoint
SIGNALS = {signal.SIGINT, signal.SIGTERM}
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Task:
    """A stage to run as a job.

    Where its work has `shares`, an array does these first, and the job, which waits for the end of
    all of them, does what they have left, and puts it together.
    """

    name: str  # for people, such as probe-organ
    folder: Path  # record, lock, scripts and logs; beside the output, not in it
    out: Path  # the folder that the stage writes to
    key: str  # hash of its inputs and sections
    work: Callable[[], int]  # the stage, picklable; returns the door's exit code
    resources: Resources
    shares: tuple[Callable[[], int], ...] = ()  # of the work, for an array that goes before it
    on_ranks: bool = False  # whether all tasks of the job run it, or the first one alone
    detach: bool = False  # whether the job runs on after Ctrl-C

    @property
    def job_name(self) -> str:
        """The same for the same output, and for no other."""
        return _job_name(self.name, self.out)

    @property
    def array_name(self) -> str:
        """The same for the array that goes before it."""
        return f"{self.job_name}-shares"

    @property
    def alone(self) -> bool:
        """Whether it runs on the first of several nodes, and the others are for its workers."""
        return self.resources.nodes > 1 and not self.on_ranks


def launch(task: Task) -> int:
    """Have the stage done by one job and follow it to its end; the exit code of the door.

    Raises UserError where SLURM refuses the job or cannot be reached.
    """
    try:
        with _deciding(task.folder):
            job = _patiently(lambda: _attach(task))
        state = _follow(task, job)
    except KeyboardInterrupt:
        _leave(task)
        return INTERRUPTED
    return conclude(task.name, job, state, log_path(task.folder, job), task.resources)


def log_path(folder: Path, job: str) -> Path:
    """Where a job writes what it says."""
    return folder / job / f"{job}_0_log.out"


def in_queue(name: str, out: Path) -> list[str]:
    """The jobs of a stage that have not ended. Raises UserError if SLURM does not answer."""
    try:
        return [job for job, _ in slurm.queued(_job_name(name, out))]
    except slurm.AwayError as error:
        raise UserError(f"SLURM does not say whether {name} runs ({error}): try later.") from None


def earlier(folder: Path) -> list[Path]:
    """What a stage's jobs left, but for the newest: their folders, and the links into these.

    Nothing where nobody knows which is the newest.
    """
    known = record(folder)
    if known is None:
        return []
    newest = {known.get("job"), known.get("array")}
    jobs = [path for path in folder.glob("[0-9]*") if path.name.replace("_", "").isdigit()]
    gone = [path for path in sorted(jobs) if path.name.partition("_")[0] not in newest]
    names = {path.name for path in gone}
    return [*gone, *(p for p in folder.glob(LINK) if p.readlink().parent.name in names)]


def record(folder: Path) -> dict[str, Any] | None:
    """The newest job of a stage: its number, the hash of its inputs, who submitted it and when."""
    path = folder / RECORD
    found: dict[str, Any] | None = read_json(path) if path.exists() else None
    return found


def _job_name(name: str, out: Path) -> str:
    mark = hashlib.sha256(str(out.absolute()).encode()).hexdigest()[:10]
    return f"{name}-{mark}"


@contextmanager
def _deciding(folder: Path) -> Iterator[None]:
    """Only one launcher decides at a time; any end of it frees the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _attach(task: Task) -> str:
    """The one job of this stage: one in the queue, or a new one. Raises AwayError."""
    for job, key in slurm.queued(task.job_name):
        if key == task.key:
            say(f"{task.name}: attached to job {job}, its log is {log_path(task.folder, job)}")
            known = record(task.folder)
            if known is None or known["job"] != job:
                _write_record(task, job, "another", "")
            return job
        say(f"{task.name}: job {job} works on earlier inputs and is told to stop")
        slurm.cancel(job, CHECKPOINT_S)
    fence.revoke(task.out)
    array = _array_in_queue(task)
    with _undisturbed():
        name, asked = task.job_name, task.resources
        if task.shares and not array:
            array = _submit_array(task)
        stage = Job(task.work, task.out.absolute(), asked.requeues, asked.stage_to)
        job = submit([stage], name, task.key, task.folder, asked, alone=task.alone, after=array)
        _write_record(task, job, _me(), array)
        waits = f", which waits for array {array} of {len(task.shares)}" if array else ""
        say(f"{task.name}: submitted job {job}{waits}; its log is {log_path(task.folder, job)}")
    return job


def _array_in_queue(task: Task) -> str:
    """The array that works on this stage's shares already; one of earlier inputs is ended."""
    for array, key in slurm.queued(task.array_name):
        if key == task.key:
            return array
        slurm.cancel(array, CHECKPOINT_S)
    return ""


def _submit_array(task: Task) -> str:
    """Submit the array that goes before this stage's job; its number."""
    asked = task.resources
    places = [(task.folder / SHARE.format(n)).absolute() for n in range(len(task.shares))]
    for place in places:
        fence.revoke(place)
    jobs = [
        Job(work, place, asked.requeues, asked.stage_to)
        for work, place in zip(task.shares, places, strict=True)
    ]
    return submit(jobs, task.array_name, task.key, task.folder, asked)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C, which sbatch would get as well, waits until the job's number is written down."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _write_record(task: Task, job: str, launcher: str, array: str) -> None:
    known = {"job": job, "key": task.key, "launcher": launcher, "submitted": int(time.time())}
    write_json(task.folder / RECORD, known | ({"array": array} if array else {}))


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _patiently(question: Callable[[], Answer]) -> Answer:
    """An answer of SLURM, asked for again while its controller is away."""
    deadline, told = time.monotonic() + AWAY_S, False
    while True:
        try:
            return question()
        except slurm.AwayError as error:
            if not told:
                say(f"SLURM does not answer ({error}); waiting for it, jobs run on")
                told = True
            if time.monotonic() > deadline:
                raise UserError(
                    f"SLURM has not answered for {AWAY_S // 60} min ({error}): run the same "
                    "command again when it does; jobs run on meanwhile."
                ) from None
            time.sleep(2)


def _follow(task: Task, job: str) -> slurm.State:
    """Print the job's log and what becomes of it, until it has ended."""
    log, said, position = log_path(task.folder, job), "", 0
    began = asked = time.monotonic()
    state, news = _looked(task, job)
    while state.live:
        if news != said:
            say(f"{task.name}: job {job} is {news}")
            said = news
        time.sleep(0.5)
        position = _print_more(log, position)
        now = time.monotonic()
        if now - asked > min(30, 1 + (now - began) / 60):  # a queue is not to be asked every second
            asked = now
            state, news = _looked(task, job)
            if task.alone and _patiently(lambda: slurm.requeue_if_headless(job)):
                say(f"{task.name}: job {job} lost its first node and goes back to the queue")
    _print_more(log, position)
    return state


def _looked(task: Task, job: str) -> tuple[slurm.State, str]:
    """How a job stands, and in words; where it waits for its array, how that stands too."""
    state = _patiently(lambda: slurm.look(job))
    news = state.name + (f" ({state.where})" if state.where else "")
    array = (record(task.folder) or {}).get("array", "")
    if array and state.where == "Dependency":
        news = f"{news}, array {array} has {_patiently(lambda: slurm.census(array))}"
    return state, news


def _print_more(log: Path, position: int) -> int:
    """Print what a log holds beyond a position, whole lines alone; the new position."""
    if not log.exists():
        return position
    with open(log, "rb") as file:
        file.seek(position)
        new, _, rest = file.read().rpartition(b"\n")
        for line in without_noise(new.decode(errors="replace").splitlines()):
            print(line, flush=True)
        return file.tell() - len(rest)


def _leave(task: Task) -> None:
    """After Ctrl-C: end the job that this process submitted, or say how it can be ended."""
    known = record(task.folder)
    if known is None or known["key"] != task.key:
        return
    job = known["job"]
    if known["launcher"] != _me() or task.detach:
        say(
            f"{task.name}: job {job} runs on; the same command attaches to it again, and "
            f"`scancel {job}` ends it."
        )
        return
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    say(f"{task.name}: job {job} is told to write its checkpoint, then cancelled")
    slurm.cancel(job, CHECKPOINT_S)  # first, for it waits for the end of the array
    if known.get("array"):
        slurm.cancel(known["array"], CHECKPOINT_S)
    say(f"{task.name}: job {job} has ended; run the same command again to go on.")
