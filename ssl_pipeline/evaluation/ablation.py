"""Results table of arms that were pretrained differently, from the predictions of their trials.

Every arm was trained once for each seed; random weights and pixels are compared too. Intervals are
over the scored subjects and the seeds of training. Draws of labelled subjects share the encoder of
their seed, so they are averaged within it first: taken as seeds of their own they would make an
interval too narrow.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from ssl_pipeline.evaluation.cells import (
    NOT_PRETRAINED,
    Cell,
    comparable_methods,
    read_cell,
)
from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.metrics.scores import Predictions, ScoreFunction
from ssl_pipeline.evaluation.records import (
    AblationTable,
    ArmDifference,
    ArmScore,
    Results,
    ScoreRow,
    read_results,
)
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate

ArmKey = tuple[str, str, int]  # arm, method, labelled subjects
RowType = TypeVar("RowType")
Trials = Mapping[str, Sequence[tuple[Path, Results]]]  # of every arm, one a seed


def ablation_table(
    name: str,
    stage: str,
    folders: Mapping[str, Sequence[Path]],
    *,
    score: ScoreFunction,
    confidence: float,
) -> AblationTable:
    """The table of one task and stage; `score` is the task's.

    `folders` are those of every arm, one a seed, in which the stage left its results and cells;
    some hold random weights or the baseline of pixels too.
    """
    trials: Trials = {
        arm: [(folder, read_results(folder)) for folder in own] for arm, own in folders.items()
    }
    seeds = next(iter(trials.values()))
    first = seeds[0][1]
    found = _gather_predictions(trials)
    test = sorted({row["subject"] for draws in found.values() for row in draws[0][0]})
    scores = {key: _estimate(draws, test, score) for key, draws in found.items()}
    return AblationTable(
        name=name,
        stage=stage,
        task=first.task,
        kind=first.kind,
        metric=first.metric,
        split=first.split,
        n_train_subjects=first.n_train_subjects,
        n_test_subjects=first.n_test_subjects,
        notes=first.notes,
        n_seeds=len(seeds),
        confidence=confidence,
        warning=_warning(trials),
        rows=tuple(_rows(scores, first.metric, confidence)),
        differences=tuple(_differences(scores, confidence)),
    )


def _gather_predictions(trials: Trials) -> dict[ArmKey, list[list[Predictions]]]:
    """Predictions by arm, method and labelled subjects: for each seed, for each draw of labels.

    Rows of which a trial has none, for one of its cells failed, are left out.
    """
    found: dict[ArmKey, list[list[Predictions]]] = {}
    for arm, seeds in trials.items():
        for folder, results in seeds:
            for row in results.rows:
                own = row.initialization if row.initialization in NOT_PRETRAINED else arm
                draws = _draws(folder, row)
                found.setdefault((own, row.method, row.subjects), []).append(draws)
    each = len(next(iter(trials.values())))
    return {key: seeds for key, seeds in found.items() if len(seeds) == each}


def _draws(folder: Path, row: ScoreRow) -> list[Predictions]:
    """Predictions of a row, for each draw of labelled subjects."""
    cells = [Cell(*row.key, draw) for draw in range(len(row.per_seed))]
    return [read_cell(cell.path(folder)).predictions for cell in cells]


def _estimate(
    seeds: Sequence[Sequence[Predictions]], test_subjects: Sequence[str], score: ScoreFunction
) -> MetricEstimate:
    """The estimate over seeds, each the mean over its draws of labelled subjects."""
    measured = [[score(test_subjects, draw).primary for draw in seed] for seed in seeds]
    return MetricEstimate.from_repeats(measured)


def _rows(
    scores: Mapping[ArmKey, MetricEstimate], metric: str, confidence: float
) -> Iterator[ArmScore]:
    for (arm, method, subjects), own in scores.items():
        estimate = own.with_seeds(confidence, METRICS[metric].value_range)
        yield ArmScore(arm=arm, method=method, subjects=subjects, **dict(estimate))


def find_row(
    rows: Mapping[ArmKey, RowType], arm: str, method: str, subjects: int
) -> RowType | None:
    """The row of an arm to compare with a method; None where there is none."""
    found = (rows.get((arm, own, subjects)) for own in comparable_methods(method, arm))
    return next((row for row in found if row), None)


def _differences(
    scores: Mapping[ArmKey, MetricEstimate], confidence: float
) -> Iterator[ArmDifference]:
    """Differences from each earlier arm, random weights and the baselines, paired by seed."""
    arms = list(dict.fromkeys(arm for arm, _, _ in scores))
    trained = [arm for arm in arms if arm not in NOT_PRETRAINED]
    pairs = [(later, earlier) for earlier, later in combinations(trained, 2)]
    pairs += [(arm, other) for arm in trained for other in NOT_PRETRAINED]
    compared = dict.fromkeys((m, s) for arm, m, s in scores if arm in trained)
    for method, subjects in compared:
        for arm, against in pairs:
            own = scores.get((arm, method, subjects))
            other = find_row(scores, against, method, subjects)
            if own is not None and other is not None:
                yield ArmDifference(
                    arm=arm,
                    against=against,
                    method=method,
                    subjects=subjects,
                    **dict(own.difference(other, confidence)),
                )


def _warning(trials: Trials) -> str:
    """Warnings of the trials' own results, each once, and how many of their cells failed."""
    warnings = [results.warning for seeds in trials.values() for _, results in seeds]
    for arm, seeds in trials.items():
        for seed, (_, results) in enumerate(seeds):
            failed = len(results.failed)
            warnings.append(f"Cells of {arm}-{seed} failed: {failed}." if failed else "")
    return " ".join(dict.fromkeys(filter(None, warnings)))
