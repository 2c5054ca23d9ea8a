"""The results of a study's tasks, as the stages of evaluation wrote them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_pipeline.atomic import read_json
from ssl_pipeline.evaluation.cells import INITS, PIXELS

STAGES = ("probe", "finetune")
STARTS = {"pretrained": "pretrained", "random": "random weights", PIXELS: PIXELS}
METHODS = {"knn": "kNN", "linear": "linear probe", "fine-tuning": "fine-tuning"}
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
        """Names of the methods, in the order of the table."""
        return tuple(dict.fromkeys(row["method"] for row in self.results["rows"]))

    def budgets(self, method: str) -> tuple[int, ...]:
        """Numbers of labelled subjects that a method was given, rising; 0 is all, and last."""
        rows = (row for row in self.results["rows"] if row["method"] == method)
        return tuple(dict.fromkeys(row["subjects"] for row in rows))

    def row(self, method: str, init: str, subjects: int) -> Row | None:
        """One row of the table."""
        wanted = (method, init, subjects)
        rows = self.results["rows"]
        return next((r for r in rows if (r["method"], r["init"], r["subjects"]) == wanted), None)

    def series(self, method: str) -> dict[str, list[Row]]:
        """The rows of a method by their start, budgets rising."""
        rows = [row for row in self.results["rows"] if row["method"] == method]
        found = {init: [row for row in rows if row["init"] == init] for init in INITS}
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
    """The results below a study's folder, by task; a task that was not judged has none."""
    return {task: [j for stage in STAGES for j in _read(folder, stage, task)] for task in tasks}


def method_name(method: str) -> str:
    """What the report calls a method."""
    return METHODS.get(method, method)


def _read(folder: Path, stage: str, task: str) -> list[Judgement]:
    own = folder / stage / task
    if not (own / "results.json").exists():
        return []
    costs = read_json(own / "costs.json") if (own / "costs.json").exists() else []
    return [Judgement(task, stage, own, read_json(own / "results.json"), costs)]
