"""Evaluation on corrupted scans: scores at every corruption and severity.

The methods of probing and fine-tuning are evaluated again, with most labels, on corrupted scans of
the scored subjects: probes are fitted once more on clean features, and networks are those that
fine-tuning saved. All methods are evaluated on the same corrupted scans. The corruption error is
the error at all severities over that of random weights with the same method, a mean over
corruptions (Hendrycks & Dietterich 2019, arXiv:1903.12261; of medical images, di Salvo et al. 2024,
arXiv:2406.17536): below 1 an encoder is more robust than random weights.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import RANDOM, Cell
from ssl_pipeline.evaluation.config import Robustness
from ssl_pipeline.evaluation.corruptions import CorruptionConfig
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.metrics.metric import AUC, METRICS
from ssl_pipeline.evaluation.metrics.scores import MetricValue
from ssl_pipeline.evaluation.records import (
    RESULTS_FILE,
    ExplainedVariance,
    RobustnessResults,
    RobustnessRow,
    SeverityCurve,
    SeverityScore,
)
from ssl_pipeline.evaluation.robustness.corrupted_reader import corrupt_volumes
from ssl_pipeline.evaluation.robustness.evaluators import (
    OOD,
    STABILITY,
    RobustnessInputs,
    build_evaluators,
)
from ssl_pipeline.evaluation.runner.context import (
    SCORE_INDEPENDENT_KEYS,
    EvaluationContext,
    TaskRunner,
)
from ssl_pipeline.evaluation.runner.precision import with_recorded_precision
from ssl_pipeline.evaluation.statistics.estimates import Estimate, MetricEstimate, to_json_number
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.io.records import Record, RecordPart, read_record_if_whole, write_record
from ssl_pipeline.progress import progress
from ssl_pipeline.store.catalog import ScanRow

CLEAN = "clean"
FEATURE_RANGES = {OOD: METRICS[AUC].value_range, STABILITY: None}


class ConditionScore(RecordPart):
    """The score of one cell's network or probe under one condition; None where not defined."""

    method: str
    initialization: str
    subjects: int
    seed: int
    value: float | None
    pseudovalues: tuple[float | None, ...]


class ConditionRecord(Record):
    """The scores of all cells under one corruption at one level."""

    format: Literal[1] = 1
    key: str  # hash of all that determines them
    scores: tuple[ConditionScore, ...]


def run_robustness(
    task: Task, inputs: RobustnessInputs, context: EvaluationContext
) -> RobustnessResults:
    """Evaluate a task on corrupted scans; write `conditions/` and `results.json` to `context.out`.

    Returns the results. Existing conditions with the same key are not computed
    again. Raises UserError where a network was not saved.
    """
    runner = TaskRunner(task, context)
    finetune = with_recorded_precision(inputs.finetune, inputs.networks)
    inputs = replace(inputs, finetune=finetune)
    conditions = task_conditions(task, inputs.robustness, runner.subject_split.entries)
    evaluators, notes = build_evaluators(runner, inputs)
    cells = [asdict(cell) for evaluator in evaluators for cell in evaluator.cells]
    configuration = [runner.truth_hash, *_section_dumps(inputs), dict(context.initializations)]
    determined_by = [*configuration, cells]
    found: dict[str, dict[Cell, MetricValue]] = {}
    todo: list[tuple[CorruptionConfig, int] | None] = [None, *conditions]
    with progress(f"Robustness: {task.title}", total=len(todo)) as bar:
        for condition in todo:
            name, level, volumes = _condition(runner, inputs, condition)
            bar.begin(name)
            scorers = [partial(evaluator.score, volumes) for evaluator in evaluators]
            found[name] = _load_or_score(context.out, name, [level, *determined_by], scorers)
            bar.advance(name)
    runner.record_access(sha256_json(configuration))
    groups = [[group.name, group.value, sorted(group.scans)] for group in runner.subgroups]
    explained = _load_or_score(
        context.out,
        "groups",
        [groups, *determined_by],
        [each.explained_variance for each in evaluators],
    )
    results = _results(runner, inputs.robustness, conditions, found, explained, notes)
    write_record(context.out / RESULTS_FILE, results)
    return results


def task_conditions(
    task: Task, robustness: Robustness, entries: Iterable[ScanRow]
) -> list[tuple[CorruptionConfig, int]]:
    """Corruptions and severities for the scans of a task. Raises UserError where none applies."""
    modalities = {entry.modality for entry in entries}
    conditions = robustness.conditions(modalities)
    if not conditions:
        raise UserError(
            f"Task {task.title!r}: none of robustness.corruptions is of its scans' modality, "
            f"{', '.join(sorted(modalities))}: name one that is, or leave robustness out of the "
            "task's stages."
        )
    return conditions


def _load_or_score(
    out: Path,
    name: str,
    determined_by: list[Any],
    score_functions: Sequence[Callable[[], dict[Cell, MetricValue]]],
) -> dict[Cell, MetricValue]:
    """Scores of all evaluators, from the condition's file where that has the same key."""
    key, path = sha256_json(determined_by), out / "conditions" / f"{name}.json"
    known = read_record_if_whole(ConditionRecord, path)
    if known is None or known.key != key:
        scores = [pair for each in score_functions for pair in each().items()]
        known = ConditionRecord(key=key, scores=tuple(_score_record(*pair) for pair in scores))
        write_record(path, known)
    return dict(map(_parse_score, known.scores))


def _condition(
    runner: TaskRunner, inputs: RobustnessInputs, condition: tuple[CorruptionConfig, int] | None
) -> tuple[str, float | None, StoredVolumes]:
    """Name, level and volumes; corrupted volumes are freed with them, for they are large."""
    if condition is None:
        return CLEAN, None, runner.volumes
    corruption, severity = condition
    seed = runner.context.seed
    volumes = corrupt_volumes(runner.volumes, corruption, severity, inputs.preprocess, seed)
    return f"{corruption.name}-{severity}", corruption.LEVELS[severity - 1], volumes


def _section_dumps(inputs: RobustnessInputs) -> list[dict[str, Any]]:
    """The settings that scores depend on."""
    parts = (inputs.probe, inputs.finetune.for_methods(*inputs.finetune.methods), inputs.preprocess)
    return [part.model_dump(mode="json", exclude=SCORE_INDEPENDENT_KEYS) for part in parts]


def _score_record(cell: Cell, value: MetricValue) -> ConditionScore:
    return ConditionScore(
        **asdict(cell),
        value=to_json_number(value.value),
        pseudovalues=tuple(to_json_number(p) for p in value.pseudovalues),
    )


def _parse_score(score: ConditionScore) -> tuple[Cell, MetricValue]:
    cell = Cell(score.method, score.initialization, score.subjects, score.seed)
    value, *pseudovalues = np.array(
        [score.value, *score.pseudovalues], np.float64
    )  # None becomes nan
    return cell, MetricValue(float(value), np.array(pseudovalues))


@dataclass(frozen=True)
class _ConditionScores:
    """Scores by condition, and their rows of the results."""

    scores: dict[str, dict[Cell, MetricValue]]
    robustness: Robustness
    metric: str
    confidence: float

    def row(self, method: str, initialization: str, kinds: Sequence[str]) -> RobustnessRow:
        """The row of a method and initialization: its curve and its corruption errors."""
        errors = {
            kind: self._error(method, initialization, kind) / own
            for kind in kinds
            if (own := self._error(method, RANDOM, kind)) > 0
        }
        return RobustnessRow(
            **dict(self.curve(method, initialization, kinds)),
            corruption_errors={kind: to_json_number(ratio) for kind, ratio in errors.items()},
            corruption_error=to_json_number(float(np.mean(list(errors.values() or [np.nan])))),
        )

    def curve(self, method: str, initialization: str, kinds: Sequence[str]) -> SeverityCurve:
        """A metric over severities, and by corruption."""

        def score(severity: int, names: Sequence[str]) -> SeverityScore:
            estimate = self._mean_and_interval(method, initialization, names)
            return SeverityScore(severity=severity, **dict(estimate))

        severities = self.robustness.severities
        return SeverityCurve(
            method=method,
            initialization=initialization,
            severities=(
                score(0, [CLEAN]),
                *(score(s, [f"{kind}-{s}" for kind in kinds]) for s in severities),
            ),
            corruptions={
                kind: tuple(score(s, [f"{kind}-{s}"]) for s in severities) for kind in kinds
            },
        )

    def _seed_values(self, method: str, initialization: str, name: str) -> list[MetricValue]:
        scores = self.scores[name].items()
        return [
            own
            for cell, own in scores
            if (cell.method, cell.initialization) == (method, initialization)
        ]

    def _mean_and_interval(
        self, method: str, initialization: str, names: Sequence[str]
    ) -> Estimate:
        """Mean and interval over seeds, each a mean over conditions."""
        by_seed = zip(
            *(self._seed_values(method, initialization, name) for name in names), strict=True
        )
        estimate = MetricEstimate.from_repeats([list(each) for each in by_seed])
        value_range = FEATURE_RANGES.get(method, METRICS[self.metric].value_range)
        return estimate.with_interval(self.confidence, value_range)

    def _error(self, method: str, initialization: str, kind: str) -> float:
        """Error, 1 less the score, summed over severities and seeds; 0 where there is no score."""
        names = (f"{kind}-{severity}" for severity in self.robustness.severities)
        return sum(
            (1 - own.value for n in names for own in self._seed_values(method, initialization, n)),
            0.0,
        )


def _results(
    runner: TaskRunner,
    robustness: Robustness,
    conditions: Sequence[tuple[CorruptionConfig, int]],
    scores: dict[str, dict[Cell, MetricValue]],
    explained_variance: dict[Cell, MetricValue],
    notes: Sequence[str],
) -> RobustnessResults:
    """Scores of every row at every condition, their curve over severities, and their error."""
    task, evaluate = runner.task, runner.context.evaluate
    kinds = list(dict.fromkeys(corruption.name for corruption, _ in conditions))
    found = _ConditionScores(scores, robustness, task.METRIC, evaluate.confidence)
    pairs = dict.fromkeys((cell.method, cell.initialization) for cell in scores[CLEAN])
    return RobustnessResults(
        task=task.title,
        kind=task.kind,
        metric=task.METRIC,
        split=evaluate.split,
        confidence=evaluate.confidence,
        n_test_subjects=len(runner.subject_split.test_subjects),
        initializations=tuple(runner.context.initializations),
        rows=tuple(found.row(*pair, kinds) for pair in pairs if pair[0] not in FEATURE_RANGES),
        explained_variance=tuple(_explained_variance_rows(explained_variance, evaluate.confidence)),
        features=tuple(found.curve(*pair, kinds) for pair in pairs if pair[0] in FEATURE_RANGES),
        notes=tuple(notes),
        warning=runner.context.warning,
    )


def _explained_variance_rows(
    explained_variance: dict[Cell, MetricValue], confidence: float
) -> Iterator[ExplainedVariance]:
    """Share of the variance between subjects that each attribute explains, by encoder."""
    for name, initialization in dict.fromkeys(
        (cell.method, cell.initialization) for cell in explained_variance
    ):
        seeds = [
            own
            for cell, own in explained_variance.items()
            if (cell.method, cell.initialization) == (name, initialization)
        ]
        yield ExplainedVariance(
            attribute=name,
            initialization=initialization,
            **dict(MetricEstimate.from_seeds(seeds).with_interval(confidence)),
        )
