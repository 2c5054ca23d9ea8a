"""Results table of a task, `results.json`, and the costs of its cells, `costs.json`.

The table is a function of the predictions alone and is equal byte by byte when they are. Seconds,
which differ between runs, are kept apart from it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.cells import NOT_PRETRAINED, Cell, comparable_methods
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.metrics.scores import RANGES, CellScores
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate, to_json_number
from ssl_pipeline.evaluation.statistics.intervals import coverage_note
from ssl_pipeline.evaluation.statistics.subgroups import Subgroup, subgroup_gap
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.io.atomic import write_json

RESULTS_FILE, COSTS_FILE = "results.json", "costs.json"
RowKey = tuple[str, str, int]  # of a row: method, initialization, labelled subjects


@dataclass(frozen=True)
class _TableRow:
    """One row of the table: a method, initialization and budget, over its seeds."""

    metrics: Mapping[str, MetricEstimate]  # the task's own metric first
    per_class: NDArray[np.float64]  # (classes,) of that metric

    @property
    def n_classes(self) -> int:
        """Number of classes that its scored subjects show; of a number, 1 if it is defined."""
        if not len(self.per_class):
            return int(not math.isnan(self.primary.per_seed.mean()))
        return int(np.count_nonzero(~np.isnan(self.per_class)))

    @property
    def primary(self) -> MetricEstimate:
        """The task's own metric."""
        return next(iter(self.metrics.values()))


def results_table(
    task: Task,
    scores: Mapping[Cell, CellScores],
    evaluate: Evaluate,
    *,
    train: Sequence[str],
    test: Sequence[str],
    initializations: Sequence[str],
    seed: int,
    by_subgroup: Mapping[Subgroup, Mapping[Cell, CellScores]] | None = None,
    failed: Mapping[Cell, str] | None = None,
    notes: Sequence[str] = (),
    warning: str = "",
) -> dict[str, Any]:
    """The table of a task, as `results.json` holds it; rows in the order of
    `initializations`.

    A row of which a seed has `failed`, with its reason, is left out.
    """
    failures = failed or {}
    incomplete = {(cell.method, cell.initialization, cell.subjects) for cell in failures}

    def complete(cells: Mapping[Cell, CellScores]) -> dict[Cell, CellScores]:
        return {
            cell: own
            for cell, own in cells.items()
            if (cell.method, cell.initialization, cell.subjects) not in incomplete
        }

    table_rows = _table_rows(complete(scores), initializations)
    subgroup_rows = {
        subgroup: _table_rows(complete(own), initializations)
        for subgroup, own in (by_subgroup or {}).items()
        if own
    }
    return {
        "task": task.title,
        "kind": task.kind,
        "metric": task.METRIC,
        "split": evaluate.split,
        "confidence": evaluate.confidence,
        "n_train_subjects": len(train),
        "n_test_subjects": len(test),
        "n_seeds": 1 + max(cell.seed for cell in (*scores, *failures)),
        "classes": list(task.class_names),
        "initializations": list(initializations),
        "rows": [
            {"method": method, "initialization": name, "subjects": subjects}
            | _row_record(row, task.class_names, evaluate.confidence)
            for (method, name, subjects), row in table_rows.items()
        ],
        "differences": list(_differences(table_rows, initializations, evaluate.confidence, seed)),
        "groups": [
            _subgroup_table(subgroup, own, task.class_names, evaluate)
            for subgroup, own in subgroup_rows.items()
        ],
        "gaps": list(_subgroup_gaps(table_rows, subgroup_rows, evaluate.confidence)),
        "failed": [asdict(cell) | {"reason": reason} for cell, reason in failures.items()],
        "notes": [coverage_note(len(test)), *notes, *_failure_notes(failures)],
        "warning": warning,
    }


def _failure_notes(failed: Mapping[Cell, str]) -> Iterator[str]:
    """Each reason once, with the first of the cells that failed for it."""
    for reason in dict.fromkeys(failed.values()):
        names = [cell.name for cell, own in failed.items() if own == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more} failed: {reason}."


def write_results(out: Path, results: dict[str, Any], costs: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json` and `costs.json`."""
    write_json(out / COSTS_FILE, list(costs))
    write_json(out / RESULTS_FILE, results)


def _table_rows(
    scores: Mapping[Cell, CellScores], initializations: Sequence[str]
) -> dict[RowKey, _TableRow]:
    """Rows over the seeds of their cells, sorted by method and rising budget, all (0) last."""
    found: dict[RowKey, list[CellScores]] = {}
    for cell in sorted(scores, key=lambda c: c.seed):
        found.setdefault((cell.method, cell.initialization, cell.subjects), []).append(scores[cell])
    ordered = sorted(found, key=lambda k: (k[0], k[2] or math.inf, initializations.index(k[1])))
    return {
        name: _TableRow(
            {
                key: MetricEstimate.from_seeds([s.metrics[key] for s in found[name]])
                for key in metrics
            },
            np.mean([s.per_class for s in found[name]], axis=0),
        )
        for name in ordered
        for metrics in [found[name][0].metrics]
    }


def _row_record(row: _TableRow, class_names: Sequence[str], confidence: float) -> dict[str, Any]:
    own, *others = row.metrics
    return {
        **row.primary.mean_and_interval(confidence, RANGES[own]),
        **row.primary.seed_spread(),
        "per_class": {
            name: to_json_number(value)
            for name, value in zip(class_names, row.per_class, strict=True)
        },
        "other_metrics": {
            key: row.metrics[key].mean_and_interval(confidence, RANGES[key]) for key in others
        },
    }


def _subgroup_table(
    subgroup: Subgroup,
    table_rows: Mapping[RowKey, _TableRow],
    class_names: Sequence[str],
    evaluate: Evaluate,
) -> dict[str, Any]:
    """A subgroup's own table."""
    return {
        "group": subgroup.name,
        "value": subgroup.value,
        "n_test_subjects": len(subgroup.subjects),
        "rows": [
            {"method": method, "initialization": name, "subjects": subjects}
            | _row_record(row, class_names, evaluate.confidence)
            for (method, name, subjects), row in table_rows.items()
        ],
    }


def _subgroup_gaps(
    table_rows: Mapping[RowKey, _TableRow],
    by_subgroup: Mapping[Subgroup, Mapping[RowKey, _TableRow]],
    confidence: float,
) -> Iterator[dict[str, Any]]:
    """Gaps between the subgroups of one name, in each row.

    A subgroup that lacks a class which others show has an easier task, and is left out.
    """
    for name in dict.fromkeys(subgroup.name for subgroup in by_subgroup):
        for method, initialization, subjects in table_rows:
            key = (method, initialization, subjects)
            by_value = {
                subgroup.value: own[key].primary
                for subgroup, own in by_subgroup.items()
                if subgroup.name == name and own[key].n_classes >= table_rows[key].n_classes
            }
            if len(by_value) > 1:
                row = dict(zip(("method", "initialization", "subjects"), key, strict=True))
                yield {"group": name, **row} | subgroup_gap(by_value, confidence)


def _differences(
    table_rows: Mapping[RowKey, _TableRow],
    initializations: Sequence[str],
    confidence: float,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Differences of each encoder from its comparators, paired by subject and seed."""
    for (method, name, subjects), row in table_rows.items():
        for against, other in _comparators(table_rows, initializations, method, name, subjects):
            own, *others = row.metrics
            yield {
                "method": method,
                "initialization": name,
                "subjects": subjects,
                "against": against,
                **row.metrics[own].difference(other.metrics[own], confidence, seed),
                "other_metrics": {
                    key: row.metrics[key].difference(other.metrics[key], confidence, seed)
                    for key in others
                },
            }


def _comparators(
    table_rows: Mapping[RowKey, _TableRow],
    initializations: Sequence[str],
    method: str,
    initialization: str,
    subjects: int,
) -> Iterator[tuple[str, _TableRow]]:
    """Rows that an encoder is compared with: earlier encoders, random weights, baselines."""
    if initialization in NOT_PRETRAINED:
        return
    for other in (*NOT_PRETRAINED, *initializations[: initializations.index(initialization)]):
        rows = (table_rows.get((own, other, subjects)) for own in comparable_methods(method, other))
        yield from ((other, row) for row in rows if row)  # a trial of an ablation has none
