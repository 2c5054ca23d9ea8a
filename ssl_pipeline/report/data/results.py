"""Evaluation results of a study's tasks as the report reads them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssl_pipeline.evaluation import adaptation, probes
from ssl_pipeline.evaluation.cells import (
    BASELINE_METHOD,
    RANDOM,
    Cell,
    comparable_methods,
    read_cell,
)
from ssl_pipeline.evaluation.metrics.metric import METRICS, Metric
from ssl_pipeline.evaluation.records import (
    RESULTS_FILE,
    CellCost,
    FailedCell,
    Results,
    ScoreRow,
    read_costs,
    read_results,
)
from ssl_pipeline.evaluation.statistics.intervals import holm_correction

METHOD_TITLES: dict[str, str] = probes.TITLES | adaptation.TITLES


@dataclass(frozen=True)
class TaskResult:
    """Results and costs of a task, evaluated by one stage."""

    name: str  # of the task in the study
    stage: str
    folder: Path
    results: Results
    costs: Sequence[CellCost]
    corrected_p: Mapping[int, float] = field(default_factory=dict)  # by index of the difference

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order of the table, without the baselines' own."""
        found = dict.fromkeys(row.method for row in self._all_rows)
        return tuple(method for method in found if method != BASELINE_METHOD)

    @property
    def _all_rows(self) -> tuple[ScoreRow | FailedCell, ...]:
        """Rows of the table, and cells that have failed."""
        return (*self.results.rows, *self.results.failed)

    @property
    def initializations(self) -> tuple[str, ...]:
        """The compared initializations, encoders first."""
        return self.results.initializations

    @property
    def metric(self) -> Metric:
        """The task's own metric."""
        return METRICS[self.results.metric]

    @property
    def has_intervals(self) -> bool:
        """Whether there were enough subjects for intervals."""
        return any(row.interval for row in self.results.rows)

    def label_budgets(self, method: str) -> tuple[int, ...]:
        """Numbers of labelled subjects of a method, rising; 0 is all, and last."""
        budgets = {row.subjects for row in self._all_rows if row.method == method}
        return tuple(sorted(budgets, key=lambda subjects: subjects or math.inf))

    def largest_budget(self, method: str) -> int:
        """The most labelled subjects of a method."""
        return self.label_budgets(method)[-1]

    def row(self, method: str, initialization: str, subjects: int) -> ScoreRow | None:
        """One row of the table; of a baseline the one that all methods share, if they do."""
        keys = self._comparable_keys(method, initialization, subjects)
        return next((row for row in self.results.rows if row.key in keys), None)

    def count_failures(self, method: str, initialization: str, subjects: int) -> int:
        """How many seeds of a row have failed."""
        keys = self._comparable_keys(method, initialization, subjects)
        return sum(cell.key in keys for cell in self.results.failed)

    def series(self, method: str) -> dict[str, list[ScoreRow]]:
        """The rows of a method by initialization, label budgets rising."""
        budgets = self.label_budgets(method)
        found = {
            init: [row for n in budgets if (row := self.row(method, init, n))]
            for init in self.initializations
        }
        return {init: rows for init, rows in found.items() if rows}

    def budget_text(self, subjects: int) -> str:
        """A number of labelled subjects in words."""
        return str(subjects) if subjects else f"all ({self.results.n_train_subjects})"

    def cell_path(self, row: ScoreRow, seed: int) -> Path:
        """The file of the cell of a row and seed."""
        return Cell(*row.key, seed).path(self.folder)

    def predictions(self, row: ScoreRow) -> list[dict[str, Any]]:
        """Predictions of a row, of all its seeds; none where a file of a cell is missing."""
        paths = [self.cell_path(row, seed) for seed in range(len(row.per_seed))]
        if not all(path.exists() for path in paths):
            return []
        return [prediction for path in paths for prediction in read_cell(path).predictions]

    @staticmethod
    def _comparable_keys(
        method: str, initialization: str, subjects: int
    ) -> set[tuple[str, str, int]]:
        methods = comparable_methods(method, initialization)
        return {(own, initialization, subjects) for own in methods}


def read_task_results(
    folder: Path, stages_by_task: Mapping[str, Sequence[str]]
) -> dict[str, list[TaskResult]]:
    """The results below a study's folder, by task; a task that was not evaluated has none.

    Read are those of the stages that evaluate a task, and not what one of its former stages left.
    Beside its own p-value each difference has one that is corrected for all comparisons of the
    study (Holm 1979).
    """
    found = {
        task: list(_read_stages(folder, task, stages)) for task, stages in stages_by_task.items()
    }
    compared = [c for own in found.values() for each in own for c in each.results.differences]
    tested = [comparison.p for comparison in compared if comparison.p is not None]
    corrected = iter(holm_correction(tested))
    return {
        task: [_with_corrected_p(each, corrected) for each in own] for task, own in found.items()
    }


def _read_stages(folder: Path, task: str, stages: Sequence[str]) -> Iterator[TaskResult]:
    for stage in stages:
        own = folder / stage / task
        if (own / RESULTS_FILE).exists():
            yield TaskResult(task, stage, own, read_results(own), read_costs(own).cells)


def _with_corrected_p(result: TaskResult, corrected: Iterator[float]) -> TaskResult:
    """The same with the next corrected p-values, of those differences that have one."""
    differences = enumerate(result.results.differences)
    tested = [index for index, comparison in differences if comparison.p is not None]
    return replace(result, corrected_p={index: next(corrected) for index in tested})


def collect_warnings(results: Iterable[TaskResult]) -> list[str]:
    """Warnings about the results of a task, each once."""
    warnings = (each.results.warning for each in results)
    return list(dict.fromkeys(filter(None, warnings)))


def collect_notes(results: Iterable[TaskResult]) -> list[str]:
    """Notes on the results of a task, each once."""
    return list(dict.fromkeys(note for each in results for note in each.results.notes))


def method_title(method: str) -> str:
    """The name of a method in the report."""
    return METHOD_TITLES.get(method, method)


def initialization_title(init: str) -> str:
    """The name of an initialization in the report."""
    return "random weights" if init == RANDOM else init
