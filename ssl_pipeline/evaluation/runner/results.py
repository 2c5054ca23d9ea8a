"""From the cells of a task to its table: `results.json`, and `costs.json` for what varies by run.

The table is a function of the predictions alone and is equal byte by byte when they are. Seconds
are kept apart from it.
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
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.io.atomic import write_json

RowKey = tuple[str, str, int]  # of a row: method, start, labelled subjects


@dataclass(frozen=True)
class _TableRow:
    """One row of the table: a method from one start with one budget, over its seeds."""

    metrics: Mapping[str, MetricEstimate]  # the task's own metric first
    per_class: NDArray[np.float64]  # (classes,) of that metric

    @property
    def n_classes(self) -> int:
        """How many classes its scored subjects show; 1 or 0 where a number is told, or is not."""
        if not len(self.per_class):
            return int(not math.isnan(self.primary.per_seed.mean()))
        return int(np.count_nonzero(~np.isnan(self.per_class)))

    @property
    def primary(self) -> MetricEstimate:
        """The task's own metric."""
        return next(iter(self.metrics.values()))


def results_table(
    task: TaskConfig,
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
    """The table of a task, as `results.json` holds it; rows in the order of `starts`.

    A row of which a seed has `failed`, with its reason, has no figures.
    """
    lost = failed or {}
    gaps = {(cell.method, cell.initialization, cell.subjects) for cell in lost}

    def whole(scored: Mapping[Cell, CellScores]) -> dict[Cell, CellScores]:
        return {
            c: s for c, s in scored.items() if (c.method, c.initialization, c.subjects) not in gaps
        }

    arms = _table_rows(whole(scores), initializations)
    grouped = {
        group: _table_rows(whole(own), initializations)
        for group, own in (by_subgroup or {}).items()
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
        "n_seeds": 1 + max(cell.seed for cell in (*scores, *lost)),
        "classes": list(task.class_names),
        "initializations": list(initializations),
        "rows": [
            {"method": method, "initialization": init, "subjects": subjects}
            | _row_record(arm, task.class_names, evaluate.confidence)
            for (method, init, subjects), arm in arms.items()
        ],
        "differences": list(_differences(arms, initializations, evaluate.confidence, seed)),
        "groups": [
            _subgroup_table(group, own, task.class_names, evaluate)
            for group, own in grouped.items()
        ],
        "gaps": list(_subgroup_gaps(arms, grouped, evaluate.confidence)),
        "failed": [asdict(cell) | {"reason": reason} for cell, reason in lost.items()],
        "notes": [coverage_note(len(test)), *notes, *_failure_notes(lost)],
        "warning": warning,
    }


def _failure_notes(failed: Mapping[Cell, str]) -> Iterator[str]:
    """Each reason once, with the first of the cells that it holds for."""
    for reason in dict.fromkeys(failed.values()):
        names = [cell.name for cell, why in failed.items() if why == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more} failed: {reason}."


def write_results(out: Path, results: dict[str, Any], costs: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json` and `costs.json`."""
    write_json(out / "costs.json", list(costs))
    write_json(out / "results.json", results)


def _table_rows(
    scores: Mapping[Cell, CellScores], initializations: Sequence[str]
) -> dict[RowKey, _TableRow]:
    """Cells gathered over seeds, methods together and budgets rising, all (0) last."""
    found: dict[RowKey, list[CellScores]] = {}
    for cell in sorted(scores, key=lambda c: c.seed):
        found.setdefault((cell.method, cell.initialization, cell.subjects), []).append(scores[cell])
    ordered = sorted(found, key=lambda k: (k[0], k[2] or math.inf, initializations.index(k[1])))
    return {
        name: _TableRow(
            {
                key: MetricEstimate.from_seeds([s.metrics[key] for s in found[name]])
                for key in measures
            },
            np.mean([s.per_class for s in found[name]], axis=0),
        )
        for name in ordered
        for measures in [found[name][0].metrics]
    }


def _row_record(row: _TableRow, class_names: Sequence[str], confidence: float) -> dict[str, Any]:
    own, *further = row.metrics
    return {
        **row.primary.mean_and_interval(confidence, RANGES[own]),
        **row.primary.seed_spread(),
        "per_class": {
            name: to_json_number(value)
            for name, value in zip(class_names, row.per_class, strict=True)
        },
        "other_metrics": {
            key: row.metrics[key].mean_and_interval(confidence, RANGES[key]) for key in further
        },
    }


def _subgroup_table(
    subgroup: Subgroup,
    table_rows: Mapping[RowKey, _TableRow],
    class_names: Sequence[str],
    evaluate: Evaluate,
) -> dict[str, Any]:
    """A group's own table."""
    return {
        "group": subgroup.name,
        "value": subgroup.value,
        "n_test_subjects": len(subgroup.subjects),
        "rows": [
            {"method": method, "initialization": init, "subjects": subjects}
            | _row_record(arm, class_names, evaluate.confidence)
            for (method, init, subjects), arm in table_rows.items()
        ],
    }


def _subgroup_gaps(
    table_rows: Mapping[RowKey, _TableRow],
    by_subgroup: Mapping[Subgroup, Mapping[RowKey, _TableRow]],
    confidence: float,
) -> Iterator[dict[str, Any]]:
    """How far apart the groups of one name are, in each row.

    A group that lacks a class which others show has an easier task, and is left out.
    """
    for name in dict.fromkeys(group.name for group in by_subgroup):
        for method, init, subjects in table_rows:
            key = (method, init, subjects)
            by_value = {
                group.value: own[key].primary
                for group, own in by_subgroup.items()
                if group.name == name and own[key].n_classes >= table_rows[key].n_classes
            }
            if len(by_value) > 1:
                row = {"group": name, "method": method, "initialization": init, "subjects": subjects}
                yield row | subgroup_gap(by_value, confidence)


def _differences(
    table_rows: Mapping[RowKey, _TableRow],
    initializations: Sequence[str],
    confidence: float,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Each encoder less those before it and less what is untrained, paired by subject and seed."""
    for (method, init, subjects), arm in table_rows.items():
        for against, other in _comparators(table_rows, initializations, method, init, subjects):
            own, *further = arm.metrics
            yield {
                "method": method,
                "initialization": init,
                "subjects": subjects,
                "against": against,
                **arm.metrics[own].difference(other.metrics[own], confidence, seed),
                "other_metrics": {
                    key: arm.metrics[key].difference(other.metrics[key], confidence, seed)
                    for key in further
                },
            }


def _comparators(
    table_rows: Mapping[RowKey, _TableRow],
    initializations: Sequence[str],
    method: str,
    initialization: str,
    subjects: int,
) -> Iterator[tuple[str, _TableRow]]:
    """What an encoder is compared with: others by the same method, and the baselines."""
    if initialization in NOT_PRETRAINED:
        return
    for other in (*NOT_PRETRAINED, *initializations[: initializations.index(initialization)]):
        rows = (table_rows.get((own, other, subjects)) for own in comparable_methods(method, other))
        yield from ((other, arm) for arm in rows if arm)  # a trial of an ablation has none
