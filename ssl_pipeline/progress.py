"""Console output and progress: a live bar on a terminal, plain lines anywhere else.

Plain lines come at most every `LOG_INTERVAL_S` seconds, so that a log of a long job stays readable.
The command line opens a log file with `log_to`, which then gets every line too. Debug lines (why a
stage runs, the outcome of each item) always go to the log, and to the console with `-v`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

LOG_INTERVAL_S = 10.0
console = Console(soft_wrap=True, highlight=False)
_errors = Console(soft_wrap=True, highlight=False, stderr=True)
_logs: list[Console] = []
_debug_targets: list[Console] = []  # consoles for debug lines, beside the logs


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also append all output of the block to this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", buffering=1) as file:
        _logs.append(Console(file=file, soft_wrap=True, highlight=False))
        try:
            yield
        finally:
            _logs.pop()


def info(text: str, *, error: bool = False) -> None:
    """Print a line, to standard error if it is an error message, and to the open log."""
    for target in (_errors if error else console, *_logs):
        target.print(text, style="bold red" if error else None, markup=False)


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
        target.print(text, style="dim", markup=False)


@runtime_checkable
class ProgressBar(Protocol):
    """Something that can be advanced."""

    def advance(self, text: str = "", to: int | None = None) -> None:
        """Count one more item, or set the count to `to`; `text` says what was done."""


class _TerminalBar:
    def __init__(self, bar: Progress, total: int) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=total)

    def advance(self, text: str = "", to: int | None = None) -> None:
        self.bar.update(self.task, description=text)
        if to is None:
            self.bar.advance(self.task)
        else:
            self.bar.update(self.task, completed=to)


class _LogBar:
    def __init__(self, title: str, total: int, targets: list[Console]) -> None:
        self.title, self.total, self.targets = title, total, targets
        self.done, self.last = 0, 0.0
        self.first: int | None = None  # where a resumed run begins: the rate is that of its part
        self.start = time.monotonic()

    def advance(self, text: str = "", to: int | None = None) -> None:
        if self.first is None:
            self.first = to or 0
        self.done = self.done + 1 if to is None else to
        now = time.monotonic()
        if now - self.last >= LOG_INTERVAL_S or self.done == self.total:
            self.last = now
            took = now - self.start
            left = took / max(self.done - self.first, 1) * (self.total - self.done)
            for target in self.targets:
                target.print(
                    f"{self.title}: {self.done}/{self.total} after {took:.0f} s, "
                    f"about {left:.0f} s left  {text}"
                )


class _CombinedBar:
    def __init__(self, *bars: ProgressBar) -> None:
        self.bars = bars

    def advance(self, text: str = "", to: int | None = None) -> None:
        for bar in self.bars:
            bar.advance(text, to)


@contextmanager
def progress(title: str, total: int) -> Iterator[ProgressBar]:
    """Show how many of `total` items are done."""
    if not console.is_terminal:
        yield _LogBar(title, total, [console, *_logs])
        return
    columns = (
        TextColumn(f"[bold]{title}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        yield _CombinedBar(_TerminalBar(bar, total), _LogBar(title, total, _logs))
