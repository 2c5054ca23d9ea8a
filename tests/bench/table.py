"""Ratios of ours against a peer's from one interleaved run, as a table and as JSON.

A ratio is such that higher is better. Absolute times move by a third on a shared machine; ratios of
works that take turns do not.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import quantile_test

from ssl_pipeline.io.atomic import write_json


@dataclass(frozen=True)
class BenchmarkRow:
    """One comparison."""

    measure: str
    ours: str
    peer: str
    ratio: float | None = None  # None where there is no peer
    goal: float | None = None
    interval: tuple[float, float] | None = None  # of the ratio, 95 %, over rounds

    @property
    def outcome(self) -> str:
        """Whether the goal is met: by the whole interval, where there is one."""
        if self.goal is None or self.ratio is None:
            return ""
        low, high = self.interval or (self.ratio, self.ratio)
        if low >= self.goal:
            return "met"
        return "missed" if high < self.goal else "undecided"


@dataclass(frozen=True)
class Times:
    """Seconds of works that took turns, by round."""

    rounds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Of a work."""
        return statistics.median(self.rounds[name])

    def ratio(self, ours: str, peer: str) -> float:
        """How many times faster ours is: the median of the rounds' ratios."""
        return statistics.median(self._ratios(ours, peer))

    def ratio_interval(self, ours: str, peer: str) -> tuple[float, float]:
        """A 95 % confidence interval of that median, from the order of the rounds' ratios."""
        low, high = quantile_test(self._ratios(ours, peer)).confidence_interval()
        return float(low), float(high)

    def _ratios(self, ours: str, peer: str) -> list[float]:
        rounds = zip(self.rounds[ours], self.rounds[peer], strict=True)
        return [theirs / mine for mine, theirs in rounds]


def interleaved_times(
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] | None = time.perf_counter,
) -> Times:
    """Seconds of each work in each round, after one round that is not counted.

    Without a clock, works return their own seconds.

    They take turns in an order that is drawn for each round, for what follows a work that fills the
    caches is slower. `before` is called ahead of each, and not timed.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    order = random.Random(0)
    for number in range(rounds + 1):
        for name in order.sample(list(works), len(works)):
            before()
            began = clock() if clock else 0.0
            value = works[name]()
            if number:
                taken[name].append(clock() - began if clock else value)
    return Times(taken)


def median_seconds(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each work, in turns as `times` has them."""
    taken = interleaved_times(works, rounds, before)
    return {name: taken.median(name) for name in works}


def time_row(
    measure: str, ours: float, peer: float, name: str, goal: float | None = None
) -> BenchmarkRow:
    """A comparison of seconds."""
    return BenchmarkRow(
        measure, f"{ours * 1e3:.3g} ms", f"{name}: {peer * 1e3:.3g} ms", peer / ours, goal
    )


def write_table(rows: list[BenchmarkRow], out: Path) -> None:
    """Print the table, and write its rows."""
    table = Table(box=None, title=out.stem, title_justify="left")
    for column in ("measure", "ours", "peer", "ratio", "goal", ""):
        table.add_column(column, justify="right" if column in ("ratio", "goal") else "left")
    for row in rows:
        ratio, goal = ("" if n is None else f"{n:.2f}" for n in (row.ratio, row.goal))
        if row.interval:
            ratio += " [{:.2f}, {:.2f}]".format(*row.interval)
        table.add_row(row.measure, row.ours, row.peer, ratio, goal, row.outcome)
    Console(width=140).print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, [asdict(row) for row in rows])
    Console(width=140).print(f"The same rows are in {out}.")
