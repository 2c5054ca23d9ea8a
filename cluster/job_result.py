"""The result of a job, in one sentence: its meaning, SLURM's state, the end and path of its log.

A stage that ends by itself has the exit code of its command, which is passed on: 0, 1, 2 or 3. All
others are signals, which SLURM reports in several ways: as a signal, as its number or as 128 more.
"""

import re
import signal
from collections.abc import Iterable
from pathlib import Path

from cluster.config import JobResources
from cluster.slurm import JobState
from ssl_pipeline.progress import info

LAST_LINE_COUNT = 8
OUT_OF_MEMORY_PATTERN = re.compile(
    r"exceeded (\w+ )*memory limit|oom[ _-]?kill|out[ _-]of[ _-]memory|cannot allocate memory", re.I
)
KILLED_PATTERN = re.compile(r"\bKilled\b")  # by a shell or srun, of a process that got SIGKILL
OWN_EXIT_CODES = (1, 2, 3)
LOG_EXIT_CODE = 53  # of SLURM, where it cannot open the log
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
NOISE_PREFIXES = ("submitit INFO", "submitit WARNING", "srun: Job step aborted")


def report_result(name: str, job: str, state: JobState, log: Path, resources: JobResources) -> int:
    """Report how a job ended, if it failed; returns the exit code of the launcher."""
    if state.name == "COMPLETED":
        return 0
    lines = last_lines(log)
    code, meaning = interpret_result(state, lines, resources)
    ending = f"exit code {state.exit_code}" + (f", signal {state.signal}" if state.signal else "")
    shown = "".join(f"\n  | {line}" for line in lines) if code != 2 or state.exit_code != 2 else ""
    info(
        f"{name}: job {job} {meaning} (SLURM says {state.name}, {ending}); its log is {log}{shown}",
        error=True,
    )
    return code


def interpret_result(state: JobState, lines: list[str], resources: JobResources) -> tuple[int, str]:
    """The exit code of the command for the end of a job, and its meaning."""
    log = "\n".join(lines)
    number = ending_signal(state)
    is_failure = state.name == "FAILED"
    if is_failure and not number and state.exit_code in OWN_EXIT_CODES:
        meanings = ("ended with an error", "asks for a change", "was interrupted, run it again")
        return state.exit_code, meanings[state.exit_code - 1]
    was_killed = is_failure and number == signal.SIGKILL
    raise_memory = f"raise mem_gb from {resources.mem_gb:g}"
    if (
        state.name == "OUT_OF_MEMORY"
        or OUT_OF_MEMORY_PATTERN.search(log)
        or (was_killed and KILLED_PATTERN.search(log))
    ):
        return 2, f"ran out of memory, {raise_memory}"
    if was_killed:
        return 2, f"was killed without a word, most likely out of memory: {raise_memory}"
    if is_failure and number in STOP_SIGNALS:
        return 3, "was stopped from outside, run the same command again to go on"
    return _interpret_state(state, number, resources)


def _interpret_state(state: JobState, number: int, resources: JobResources) -> tuple[int, str]:
    """Exit code and meaning where SLURM's word for the end decides."""
    if state.name in ("TIMEOUT", "DEADLINE"):
        return 2, (
            f"reached its time limit of {resources.time_min} min before it had written a "
            f"checkpoint, raise signal_before_end_s from {resources.signal_before_end_s}"
        )
    if state.name in ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED"):
        return 3, "lost its node and was not requeued, run the same command again to go on"
    if state.name == "CANCELLED":
        return 3, "was cancelled, run the same command again to go on"
    if LOG_EXIT_CODE in (state.exit_code, state.signal):
        return 1, "could not open its log, is its folder gone or full"
    return 1, f"died of {signal.Signals(number).name}" if number else "died"


def ending_signal(state: JobState) -> int:
    """The signal that ended a job, 0 where none did or it is no signal of this system."""
    number = state.signal or state.exit_code
    number -= 128 if number > 128 else 0
    is_own = not state.signal and state.exit_code in OWN_EXIT_CODES
    return number if not is_own and number in set(signal.Signals) else 0


def strip_noise(lines: Iterable[str]) -> list[str]:
    """Lines of a log without the messages of submitit and srun."""
    return [line for line in lines if not line.startswith(NOISE_PREFIXES)]


def last_lines(log: Path) -> list[str]:
    """The last lines of a log."""
    if not log.exists():
        return []
    return strip_noise(log.read_text(errors="replace").splitlines())[-LAST_LINE_COUNT:]
