"""Reading the evaluation results of a study's tasks (`results.json`, `costs.json`)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation import adaptation, probes
from ssl_pipeline.evaluation.cells import BASELINE_METHOD, RANDOM, comparable_methods
from ssl_pipeline.evaluation.statistics.intervals import holm_correction
from ssl_pipeline.io.atomic import read_json

EVALUATION_STAGES = ("probe", "finetune")
METHOD_TITLES: dict[str, str] = probes.TITLES | adaptation.TITLES
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TaskResult:
    """One `results.json`: a task, evaluated by one stage."""

    task: str  # its name in the study
    stage: str
    folder: Path
    content: Row
    costs: Sequence[Row]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order of the table, without the baselines' own."""
        found = dict.fromkeys(row["method"] for row in self._rows)
        return tuple(method for method in found if method != BASELINE_METHOD)

    @property
    def _rows(self) -> Sequence[Row]:
        """Rows of the table, and cells that have failed."""
        return [*self.content["rows"], *self.content.get("failed", ())]

    @property
    def initializations(self) -> tuple[str, ...]:
        """The compared initializations, encoders first."""
        return tuple(self.content["initializations"])

    def label_budgets(self, method: str) -> tuple[int, ...]:
        """Numbers of labelled subjects of a method, rising; 0 is all, and last."""
        budgets = {row["subjects"] for row in self._rows if row["method"] == method}
        return tuple(sorted(budgets, key=lambda subjects: subjects or math.inf))

    def row(self, method: str, initialization: str, subjects: int) -> Row | None:
        """One row of the table; of a baseline the one that all methods share, if they do."""
        for row in self.content["rows"]:
            if row["method"] in comparable_methods(method, initialization) and (
                row["initialization"],
                row["subjects"],
            ) == (
                initialization,
                subjects,
            ):
                return cast(Row, row)
        return None

    def count_failures(self, method: str, initialization: str, subjects: int) -> int:
        """How many seeds of a row have failed."""
        wanted = [
            (own, initialization, subjects) for own in comparable_methods(method, initialization)
        ]
        cells = self.content.get("failed", ())
        return sum((c["method"], c["initialization"], c["subjects"]) in wanted for c in cells)

    def series(self, method: str) -> dict[str, list[Row]]:
        """The rows of a method by initialization, label budgets rising."""
        budgets = self.label_budgets(method)
        found = {
            init: [row for n in budgets if (row := self.row(method, init, n))]
            for init in self.initializations
        }
        return {init: rows for init, rows in found.items() if rows}

    def budget_text(self, subjects: int) -> str:
        """A number of labelled subjects in words."""
        return str(subjects) if subjects else f"all ({self.content['n_train_subjects']})"

    @property
    def warning(self) -> str:
        """A warning about the results; empty where there is none."""
        return str(self.content.get("warning", ""))

    @property
    def has_intervals(self) -> bool:
        """Whether there were enough subjects for intervals."""
        return any(row["low"] is not None for row in self.content["rows"])


def read_results(folder: Path, tasks: Iterable[str]) -> dict[str, list[TaskResult]]:
    """The results below a study's folder, by task; a task that was not evaluated has none.

    The p-values of differences are corrected for all comparisons of the study (Holm 1979).
    """
    found = {
        task: [j for stage in EVALUATION_STAGES for j in _read_stage_results(folder, stage, task)]
        for task in tasks
    }
    rows = [row for own in found.values() for each in own for row in each.content["differences"]]
    tested = [row for row in rows if row.get("p") is not None]
    for row, p in zip(tested, holm_correction([row["p"] for row in tested]), strict=True):
        row["p"] = p
    return found


def collect_warnings(results: Iterable[TaskResult]) -> list[str]:
    """Warnings about the results of a task, each once."""
    return list(dict.fromkeys(each.warning for each in results if each.warning))


def collect_notes(results: Iterable[TaskResult]) -> list[str]:
    """Notes on the results of a task, each once."""
    return list(dict.fromkeys(note for each in results for note in each.content["notes"]))


def method_title(method: str) -> str:
    """The name of a method in the report."""
    return METHOD_TITLES.get(method, method)


def initialization_title(init: str) -> str:
    """The name of an initialization in the report."""
    return "random weights" if init == RANDOM else init


def _read_stage_results(folder: Path, stage: str, task: str) -> list[TaskResult]:
    own = folder / stage / task
    if not (own / "results.json").exists():
        return []
    costs = read_json(own / "costs.json") if (own / "costs.json").exists() else []
    results = read_json(own / "results.json")
    of_groups = [row for group in results.get("groups", ()) for row in group["rows"]]
    if "notes" not in results or any("other_metrics" not in row for row in of_groups):
        raise UserError(
            f"{own / 'results.json'} is of an earlier version: run the stage {stage} of task "
            f"{task} again, which computes nothing twice."
        )
    return [TaskResult(task, stage, own, results, costs)]
