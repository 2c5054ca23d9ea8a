"""Console output and progress: a live bar on a terminal, plain lines in logs, a record for queries.

Plain lines come at most every `LOG_INTERVAL_S` seconds, so that a log of a long job stays readable.
The command line opens a log file with `log_to`, which then gets every line too, and a progress
record with `record_progress`, which `status` reads. Debug lines (why a stage runs, the outcome of
each item) always go to the log, and to the console with `-v`.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from ssl_pipeline.formatting import escape_bytes, format_duration
from ssl_pipeline.io.atomic import atomic_write
from ssl_pipeline.io.records import read_json_if_whole

PROGRESS_FORMAT = 1
LOG_INTERVAL_S = 10.0
RECORD_INTERVAL_S = 1.0


def plain_console(*, file: IO[str] | None = None, stderr: bool = False) -> Console:
    """A console that shows every text as it is: titles and paths of users are no markup."""
    return Console(
        file=file, stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False
    )


console = plain_console()
_errors = plain_console(stderr=True)
_logs: list[Console] = []
_debug_targets: list[Console] = []  # consoles for debug lines, beside the logs
_record_files: list[Path] = []  # the last one is written
_silences: list[bool] = []  # one for each block around that shows no progress


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also append all output of the block to this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", buffering=1, errors="backslashreplace") as file:
        _logs.append(plain_console(file=file))
        try:
            yield
        finally:
            _logs.pop()


def info(text: str, *, error: bool = False) -> None:
    """Print a line, to standard error if it is an error message, and to the open log."""
    for target in (_errors if error else console, *_logs):
        target.print(escape_bytes(text), style="bold red" if error else None)


def print_table(table: Table) -> None:
    """Print a table on the console as wide as its cells are: cells are not cut."""
    endless = console.options.update(max_width=999)
    table.width = console.measure(table, options=endless).maximum
    console.print(table)


def enable_debug() -> None:
    """Show debug lines on the console too."""
    _debug_targets.append(console)


def debug(text: str) -> None:
    """Print a debug line to the open log, and to the console if enabled."""
    for target in (*_debug_targets, *_logs):
        target.print(escape_bytes(text), style="dim")


@dataclass(frozen=True)
class ProgressRecord:
    """How far an activity is, as one file for whoever asks."""

    activity: str
    done: int
    total: int
    elapsed_s: float  # since this process began it
    left_s: float  # by the rate of this process's work; 0 where it is not known yet
    detail: str  # about the item in work, or the last one
    updated: str  # time, in UTC
    format: int = PROGRESS_FORMAT

    @property
    def rate_per_s(self) -> float:
        """Items a second; 0 where it is not known yet."""
        return (self.total - self.done) / self.left_s if self.left_s else 0.0


@contextmanager
def record_progress(path: Path, activity: str) -> Iterator[None]:
    """Also keep the progress of the block, an `activity`, in this file.

    It is written at the start, when an item begins, and else at most once a second.
    """
    _file_display(path)(ProgressRecord(activity, 0, 0, 0.0, 0.0, "", _now()))
    _record_files.append(path)
    try:
        yield
    finally:
        _record_files.pop()


def read_progress(path: Path) -> ProgressRecord | None:
    """The progress record in a file; None without one that can be read, or of another format."""
    found = read_json_if_whole(TypeAdapter(ProgressRecord).validate_json, path)
    return found if found and found.format == PROGRESS_FORMAT else None


@contextmanager
def without_progress() -> Iterator[None]:
    """Show and record no progress within the block: of work that is a measurement alone."""
    _silences.append(True)
    try:
        yield
    finally:
        _silences.pop()


Display = Callable[[ProgressRecord], None]


class ProgressBar:
    """Progress of one activity, shown on all its displays.

    The time left is by work, of which `total_work` is all: items, or bytes where items differ.
    """

    def __init__(
        self,
        activity: str,
        total: int,
        displays: Sequence[Display],
        live: Sequence[Display],
        total_work: int,
    ) -> None:
        self._activity, self._total, self._displays, self._live = activity, total, displays, live
        self._done, self._left = 0, 0.0
        self._work_left, self._work_done = total_work, 0  # what this run did itself
        self._is_begun = False
        self._start = time.monotonic()
        self.begin("")

    def begin(self, detail: str) -> None:
        """Say which item is in work, where it is seen at once; for items that take long."""
        record = self._record(detail, time.monotonic() - self._start)
        for display in self._live:
            display(record)

    def advance(
        self, detail: str = "", to: int | None = None, *, work: int = 1, is_new: bool = True
    ) -> None:
        """Count one more item, or set the count to `to`; `detail` says what was done.

        `work` is the item's share of the total work. The rate is that of what is new: not of an
        item that an earlier run did, nor of those before the first `to`.
        """
        if to is not None:
            work, is_new = to - self._done, self._is_begun
        self._is_begun = True
        self._done = self._done + 1 if to is None else to
        self._work_left -= work
        self._work_done += work * is_new
        elapsed = time.monotonic() - self._start
        if self._work_done:
            self._left = elapsed / self._work_done * self._work_left
        record = self._record(detail, elapsed)
        for display in self._displays:
            display(record)

    def _record(self, detail: str, elapsed: float) -> ProgressRecord:
        return ProgressRecord(
            self._activity, self._done, self._total, elapsed, self._left, detail, _now()
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def progress(title: str, total: int, total_work: int | None = None) -> Iterator[ProgressBar]:
    """Show how many of `total` items are done.

    `total_work` is the sum of the work of all items, where they differ.
    """
    work = total if total_work is None else total_work
    if _silences:
        yield ProgressBar(title, total, [], [], work)
        return
    files = [_file_display(path) for path in _record_files[-1:]]
    displays = [_throttled(RECORD_INTERVAL_S, display) for display in files]
    if not console.is_terminal:
        lines = _throttled(LOG_INTERVAL_S, _line_display([console, *_logs]))
        yield ProgressBar(title, total, [*displays, lines], files, work)
        return
    displays.append(_throttled(LOG_INTERVAL_S, _line_display(_logs)))
    columns = (
        TextColumn("{task.fields[title]}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        terminal = _terminal_display(bar, title, total)
        yield ProgressBar(title, total, [terminal, *displays], [terminal, *files], work)


def _throttled(interval_s: float, display: Display) -> Display:
    """The display, updated at the first item and the last, and between these now and then."""
    last = -interval_s

    def show(record: ProgressRecord) -> None:
        nonlocal last
        if record.elapsed_s - last >= interval_s or record.done == record.total:
            last = record.elapsed_s
            display(record)

    return show


def _terminal_display(bar: Progress, title: str, total: int) -> Display:
    """A live bar."""
    task = bar.add_task("", total=total, title=title, left="")
    return lambda record: bar.update(
        task, description=record.detail, completed=record.done, left=_left_text(record)
    )


def _line_display(targets: Sequence[Console]) -> Display:
    """A line a time, in logs."""

    def show(record: ProgressRecord) -> None:
        left = f", {text}" if (text := _left_text(record)) else ""
        for target in targets:
            target.print(
                f"{record.activity}: {record.done}/{record.total} after "
                f"{format_duration(record.elapsed_s)}{left}  {record.detail}"
            )

    return show


def _left_text(record: ProgressRecord) -> str:
    return f"about {format_duration(record.left_s)} left" if record.left_s else ""


def _file_display(path: Path) -> Display:
    """The record in a file, which readers see whole."""

    def write(record: ProgressRecord) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(asdict(record), indent=1) + "\n")

    return write
