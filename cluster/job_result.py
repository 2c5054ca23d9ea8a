"""The result of a job, in one sentence: its meaning, SLURM's state, the end and path of its log.

A stage that ends by itself has the exit code of its command, which is passed on: 0, 1, 2 or 3.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from cluster.config import JobResources
from cluster.slurm import JobState
from ssl_pipeline.progress import info

LAST_LINE_COUNT = 8
OUT_OF_MEMORY_PATTERN = re.compile(r"exceeded (job )?memory limit|oom[_-]kill|out of memory", re.I)
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
    own = state.name == "FAILED" and not state.signal
    if state.name == "OUT_OF_MEMORY" or (
        not own and OUT_OF_MEMORY_PATTERN.search("\n".join(lines))
    ):
        return 2, f"ran out of memory, raise mem_gb from {resources.mem_gb:g}"
    if state.name in ("TIMEOUT", "DEADLINE"):
        return 2, (
            f"reached its time limit of {resources.time_min} min before it had written a "
            f"checkpoint, raise signal_before_end_s from {resources.signal_before_end_s}"
        )
    if state.name in ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED"):
        return 3, "lost its node and was not requeued, run the same command again to go on"
    if state.name == "CANCELLED":
        return 3, "was cancelled, run the same command again to go on"
    if own and state.exit_code in (1, 2, 3):
        meanings = ("ended with an error", "asks for a change", "was interrupted, run it again")
        return state.exit_code, meanings[state.exit_code - 1]
    if state.exit_code == 53 or state.signal == 53:
        return 1, "could not open its log, is its folder gone or full"
    return 1, "died"


def strip_noise(lines: Iterable[str]) -> list[str]:
    """Lines of a log without the messages of submitit and srun."""
    return [line for line in lines if not line.startswith(NOISE_PREFIXES)]


def last_lines(log: Path) -> list[str]:
    """The last lines of a log."""
    if not log.exists():
        return []
    return strip_noise(log.read_text(errors="replace").splitlines())[-LAST_LINE_COUNT:]
