"""The results of a study's tasks, as the stages of evaluation wrote them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ssl_pipeline.atomic import read_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation import adaptation, probes
from ssl_pipeline.evaluation.cells import BASELINE, RANDOM, beside
from ssl_pipeline.evaluation.statistics import holm

STAGES = ("probe", "finetune")
TITLES: dict[str, str] = probes.TITLES | adaptation.TITLES
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """One `results.json`: a task, judged by one stage."""

    task: str  # its name in the study
    stage: str
    folder: Path
    results: Row
    costs: Sequence[Row]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in the order of the table; what baselines have is none."""
        found = dict.fromkeys(row["method"] for row in self._rows)
        return tuple(method for method in found if method != BASELINE)

    @property
    def _rows(self) -> Sequence[Row]:
        """Those of the table, and those that have failed."""
        return [*self.results["rows"], *self.results.get("failed", ())]

    @property
    def starts(self) -> tuple[str, ...]:
        """What is compared, encoders first."""
        return tuple(self.results["starts"])

    def budgets(self, method: str) -> tuple[int, ...]:
        """Numbers of labelled subjects that a method was given, rising; 0 is all, and last."""
        own = {row["subjects"] for row in self._rows if row["method"] == method}
        return tuple(sorted(own, key=lambda subjects: subjects or math.inf))

    def row(self, method: str, init: str, subjects: int) -> Row | None:
        """One row of the table; of a baseline the one that all methods share, if they do."""
        for row in self.results["rows"]:
            if row["method"] in beside(method, init) and (row["init"], row["subjects"]) == (
                init,
                subjects,
            ):
                return cast(Row, row)
        return None

    def failed(self, method: str, init: str, subjects: int) -> int:
        """How many seeds of a row have failed."""
        wanted = [(own, init, subjects) for own in beside(method, init)]
        cells = self.results.get("failed", ())
        return sum((c["method"], c["init"], c["subjects"]) in wanted for c in cells)

    def series(self, method: str) -> dict[str, list[Row]]:
        """The rows of a method by their start, budgets rising."""
        budgets = self.budgets(method)
        found = {
            init: [row for n in budgets if (row := self.row(method, init, n))]
            for init in self.starts
        }
        return {init: own for init, own in found.items() if own}

    def budget(self, subjects: int) -> str:
        """A number of labelled subjects in words."""
        return str(subjects) if subjects else f"all ({self.results['n_train_subjects']})"

    @property
    def warning(self) -> str:
        """What must be read before any figure; empty where there is nothing."""
        return str(self.results.get("warning", ""))

    @property
    def has_intervals(self) -> bool:
        """Whether there were subjects enough for intervals."""
        return any(row["low"] is not None for row in self.results["rows"])


def read_judgements(folder: Path, tasks: Iterable[str]) -> dict[str, list[Judgement]]:
    """The results below a study's folder, by task; a task that was not judged has none.

    The p-values of differences are corrected for all comparisons of the study (Holm 1979).
    """
    found = {task: [j for stage in STAGES for j in _read(folder, stage, task)] for task in tasks}
    rows = [row for own in found.values() for each in own for row in each.results["differences"]]
    tested = [row for row in rows if row.get("p") is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p"] = p
    return found


def warnings(judgements: Iterable[Judgement]) -> list[str]:
    """What must be read before any figure of a task, each once."""
    return list(dict.fromkeys(each.warning for each in judgements if each.warning))


def notes(judgements: Iterable[Judgement]) -> list[str]:
    """What is said of the figures of a task, each once."""
    return list(dict.fromkeys(note for each in judgements for note in each.results["notes"]))


def method_name(method: str) -> str:
    """What the report calls a method."""
    return TITLES.get(method, method)


def start_name(init: str) -> str:
    """What the report calls a start."""
    return "random weights" if init == RANDOM else init


def _read(folder: Path, stage: str, task: str) -> list[Judgement]:
    own = folder / stage / task
    if not (own / "results.json").exists():
        return []
    costs = read_json(own / "costs.json") if (own / "costs.json").exists() else []
    results = read_json(own / "results.json")
    of_groups = [row for group in results.get("groups", ()) for row in group["rows"]]
    if "notes" not in results or any("further" not in row for row in of_groups):
        raise UserError(
            f"{own / 'results.json'} is of an earlier version: run the stage {stage} of task "
            f"{task} again, which computes nothing twice."
        )
    return [Judgement(task, stage, own, results, costs)]
