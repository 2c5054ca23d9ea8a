"""Results of a task from the scores of its cells.

A table is a function of the predictions alone and is equal byte by byte when they are.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.cells import NOT_PRETRAINED, Cell, comparable_methods
from ssl_pipeline.evaluation.config import Evaluate
from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.metrics.scores import CellScores
from ssl_pipeline.evaluation.records import (
    Comparison,
    FailedCell,
    Results,
    RowKey,
    ScoreRow,
    SubgroupGap,
    SubgroupScores,
)
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate, to_json_number
from ssl_pipeline.evaluation.statistics.intervals import coverage_note
from ssl_pipeline.evaluation.statistics.subgroups import Subgroup, subgroup_gap
from ssl_pipeline.evaluation.tasks.task import Task


@dataclass(frozen=True)
class _TableRow:
    """One row of the table: a method, initialization and budget, over its seeds."""

    metrics: Mapping[str, MetricEstimate]  # the task's own metric first
    per_class: NDArray[np.float64]  # (classes,) of that metric

    @property
    def n_classes(self) -> int:
        """Number of classes that its scored subjects show; of a number, 1 if it is defined."""
        if not len(self.per_class):
            return int(math.isfinite(self.primary.per_seed.mean()))
        return int(np.count_nonzero(~np.isnan(self.per_class)))

    @property
    def primary(self) -> MetricEstimate:
        """The task's own metric."""
        return next(iter(self.metrics.values()))


@dataclass(frozen=True)
class ScoredCells:
    """Scores of the cells of a task, and what they were computed from."""

    scores: Mapping[Cell, CellScores]
    by_subgroup: Mapping[Subgroup, Mapping[Cell, CellScores]]
    failed: Mapping[Cell, str]  # with the reason
    initializations: Sequence[str]  # in the order of the rows
    train_subjects: Sequence[str]
    test_subjects: Sequence[str]


def build_results(
    task: Task,
    cells: ScoredCells,
    evaluate: Evaluate,
    *,
    notes: Sequence[str] = (),
    warning: str = "",
) -> Results:
    """The results of a task; a row of which a seed has failed is left out."""
    table_rows = _complete_rows(cells.scores, cells)
    subgroup_rows = {
        subgroup: _complete_rows(own, cells) for subgroup, own in cells.by_subgroup.items() if own
    }
    confidence = evaluate.confidence
    return Results(
        task=task.title,
        kind=task.kind,
        metric=task.METRIC,
        split=evaluate.split,
        confidence=confidence,
        n_train_subjects=len(cells.train_subjects),
        n_test_subjects=len(cells.test_subjects),
        n_seeds=1 + max(cell.seed for cell in (*cells.scores, *cells.failed)),
        classes=task.class_names,
        initializations=tuple(cells.initializations),
        rows=_score_rows(table_rows, task.class_names, confidence),
        differences=tuple(_comparisons(table_rows, cells.initializations, confidence)),
        subgroups=tuple(
            SubgroupScores(
                attribute=subgroup.name,
                value=subgroup.value,
                n_test_subjects=len(subgroup.subjects),
                rows=_score_rows(own, task.class_names, confidence),
            )
            for subgroup, own in subgroup_rows.items()
        ),
        gaps=tuple(_subgroup_gaps(table_rows, subgroup_rows, confidence)),
        failed=tuple(FailedCell(**asdict(c), reason=reason) for c, reason in cells.failed.items()),
        notes=(
            coverage_note(len(cells.test_subjects)),
            *notes,
            *_undefined_notes(table_rows),
            *_failure_notes(cells.failed),
        ),
        warning=warning,
    )


def _undefined_notes(table_rows: Mapping[RowKey, "_TableRow"]) -> Iterator[str]:
    """Which rows have no score, and why."""
    for (method, initialization, subjects), row in table_rows.items():
        if not np.isfinite(row.primary.per_seed).all():
            yield (
                f"{method} of {initialization} with {subjects or 'all'} labelled subjects has no "
                "score: what it predicted, or what was to be predicted, is too large or always the "
                "same."
            )


def _failure_notes(failed: Mapping[Cell, str]) -> Iterator[str]:
    """Each reason once, with the first of the cells that failed for it."""
    for reason in dict.fromkeys(failed.values()):
        names = [cell.name for cell, own in failed.items() if own == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more} failed: {reason}."


def _complete_rows(
    scores: Mapping[Cell, CellScores], cells: ScoredCells
) -> dict[RowKey, _TableRow]:
    """Rows of which no seed has failed."""
    incomplete = {_row_key(cell) for cell in cells.failed}
    complete = {cell: own for cell, own in scores.items() if _row_key(cell) not in incomplete}
    return _table_rows(complete, cells.initializations)


def _row_key(cell: Cell) -> RowKey:
    return cell.method, cell.initialization, cell.subjects


def _table_rows(
    scores: Mapping[Cell, CellScores], initializations: Sequence[str]
) -> dict[RowKey, _TableRow]:
    """Rows over the seeds of their cells, sorted by method and rising budget, all (0) last."""
    found: dict[RowKey, list[CellScores]] = {}
    for cell in sorted(scores, key=lambda c: c.seed):
        found.setdefault(_row_key(cell), []).append(scores[cell])
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


def _score_rows(
    table_rows: Mapping[RowKey, _TableRow], class_names: Sequence[str], confidence: float
) -> tuple[ScoreRow, ...]:
    return tuple(_score_row(key, row, class_names, confidence) for key, row in table_rows.items())


def _score_row(
    key: RowKey, row: _TableRow, class_names: Sequence[str], confidence: float
) -> ScoreRow:
    method, initialization, subjects = key
    own, *others = row.metrics
    per_class = zip(class_names, row.per_class, strict=True)
    return ScoreRow(
        method=method,
        initialization=initialization,
        subjects=subjects,
        **dict(row.primary.with_seeds(confidence, METRICS[own].value_range)),
        per_class={name: to_json_number(value) for name, value in per_class},
        other_metrics={
            name: row.metrics[name].with_interval(confidence, METRICS[name].value_range)
            for name in others
        },
    )


def _subgroup_gaps(
    table_rows: Mapping[RowKey, _TableRow],
    by_subgroup: Mapping[Subgroup, Mapping[RowKey, _TableRow]],
    confidence: float,
) -> Iterator[SubgroupGap]:
    """Gaps between the subgroups of one name, in each row.

    A subgroup that lacks a class which others show has an easier task, and is left out.
    """
    for name in dict.fromkeys(subgroup.name for subgroup in by_subgroup):
        for key, whole in table_rows.items():
            by_value = {
                subgroup.value: own[key].primary
                for subgroup, own in by_subgroup.items()
                if subgroup.name == name and own[key].n_classes >= whole.n_classes
            }
            if len(by_value) > 1:
                method, initialization, subjects = key
                yield SubgroupGap(
                    attribute=name,
                    method=method,
                    initialization=initialization,
                    subjects=subjects,
                    **dict(subgroup_gap(by_value, confidence)),
                )


def _comparisons(
    table_rows: Mapping[RowKey, _TableRow],
    initializations: Sequence[str],
    confidence: float,
) -> Iterator[Comparison]:
    """Differences of each encoder from its comparators, paired by subject and seed."""
    for (method, name, subjects), row in table_rows.items():
        for against, other in _comparators(table_rows, initializations, method, name, subjects):
            own, *others = row.metrics
            yield Comparison(
                method=method,
                initialization=name,
                subjects=subjects,
                against=against,
                **dict(row.metrics[own].difference(other.metrics[own], confidence)),
                other_metrics={
                    key: row.metrics[key].difference(other.metrics[key], confidence)
                    for key in others
                },
            )


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
