"""Evaluators of a task on clean or corrupted volumes: probes, networks, and feature metrics.

Probes are fitted once more on clean features, and networks are those that fine-tuning saved, all
with most labels. Features are also evaluated without labels (see `feature_analysis`), in cells
whose method is the name of the metric.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import BASELINES, RANDOM, Cell, read_cell
from ssl_pipeline.evaluation.config import Finetune, Probe, Robustness
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.metrics.scores import MetricValue
from ssl_pipeline.evaluation.probes import ProbeMethod
from ssl_pipeline.evaluation.probes.predictor import PredictFunction
from ssl_pipeline.evaluation.robustness.feature_analysis import (
    FeatureRows,
    explained_variance,
    feature_icc,
    neighbour_distance,
    ood_auroc,
)
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.crop_cells import CropCells
from ssl_pipeline.evaluation.runner.finetune import cell_section
from ssl_pipeline.evaluation.runner.finetune_cells import FinetuneCells, SavedNetwork
from ssl_pipeline.preprocess.config import Preprocess

# Metrics of features without labels, in place of the method of a cell.
OOD, STABILITY = "ood", "stability"


@dataclass(frozen=True)
class Evaluator:
    """Scores some cells on clean or corrupted volumes."""

    cells: tuple[Cell, ...]
    score: Callable[[StoredVolumes], dict[Cell, MetricValue]]
    # Variance of features that subgroups explain; the method of a cell is the attribute's name.
    explained_variance: Callable[[], dict[Cell, MetricValue]] = dict


@dataclass(frozen=True)
class RobustnessInputs:
    """Settings of the evaluation on corrupted scans, and the fine-tuned networks."""

    robustness: Robustness
    probe: Probe
    finetune: Finetune
    preprocess: Preprocess
    networks: Path  # folder of the task's fine-tuning, with its saved networks


def build_evaluators(
    runner: TaskRunner, inputs: RobustnessInputs
) -> tuple[list[Evaluator], list[str]]:
    """Evaluators of all methods with most labels, and notes on those that are left out."""
    encoders = [name for name in runner.context.initializations if name not in BASELINES]
    networks, left_out = _network_evaluators(runner, inputs, encoders)
    found = [*_probe_evaluators(runner, inputs.probe, encoders), *networks]
    if not found:
        raise UserError(
            f"Task {runner.task.title!r}: nothing can be evaluated on corrupted scans, for every "
            "method has cells that failed: run the stage finetune again, which computes only those."
        )
    notes = [f"Left out, for cells of it failed: {', '.join(left_out)}."] if left_out else []
    return found, notes


def _probe_evaluators(
    runner: TaskRunner, probe: Probe, encoders: Sequence[str]
) -> Iterator[Evaluator]:
    """Evaluators of all probes of each encoder; none where probes do not serve the task."""
    if "probe" not in runner.task.SUPPORTED_STAGES:
        return
    cells, evaluate = runner.task.probe_cells(runner), runner.context.evaluate
    most, seeds = runner.budgets(evaluate.subjects)[-1], range(evaluate.seeds)
    for name in encoders:  # seeds share the features of a trained encoder
        for group in [[seed] for seed in seeds] if name == RANDOM else [list(seeds)]:
            own = {
                Cell(method.name, name, most, seed): method
                for seed in group
                for method in probe.methods
            }
            yield _ProbeEvaluator(cells, own, probe.batch_size).evaluator


def _network_evaluators(
    runner: TaskRunner, inputs: RobustnessInputs, encoders: Sequence[str]
) -> tuple[list[Evaluator], list[str]]:
    """Evaluators of the saved networks, and the rows left out because a cell of them failed."""
    found, left_out, task_cells = [], [], runner.task.finetune_cells(runner)
    for method in runner.task.supported_methods(inputs.finetune):
        for name in encoders:
            cells = _network_cells(runner, inputs, method, name)
            if not cells:
                left_out.append(f"{method.TITLE} from {name}")
            for cell in cells:
                section = cell_section(runner, inputs.finetune, cell, method)
                saved = SavedNetwork(cell, method, section, inputs.networks)
                found.append(_network_evaluator(runner, task_cells, saved))
    return found, left_out


def _network_cells(
    runner: TaskRunner, inputs: RobustnessInputs, method: AdaptationMethod, initialization: str
) -> list[Cell]:
    """The cells of a row with most labels; none where one failed.

    Raises UserError where fine-tuning has not saved their networks, or with other settings.
    """
    finetune, evaluate = inputs.finetune, runner.context.evaluate
    budgets = runner.budgets(finetune.subjects or evaluate.subjects)
    seeds = range(finetune.seeds or evaluate.seeds)
    cells = [Cell(method.name, initialization, budgets[-1], seed) for seed in seeds]
    for cell in cells:
        path = cell.path(inputs.networks)
        record = read_cell(path) if path.exists() else None
        key = runner.cell_key(cell, cell_section(runner, finetune, cell, method))
        if record is None or record.key != key:
            raise UserError(
                f"Fine-tuning has not kept the network of {cell.name} for the present settings: "
                "set finetune.keep_networks to all, and run the stage finetune again."
            )
        if record.failed:
            return []
    return cells


def _network_evaluator(
    runner: TaskRunner, task_cells: FinetuneCells, saved: SavedNetwork
) -> Evaluator:
    """The evaluator of a saved network."""

    def score(volumes: StoredVolumes) -> dict[Cell, MetricValue]:
        return {saved.cell: runner.score(task_cells.predict(saved, volumes)).primary}

    return Evaluator((saved.cell,), score)


class _ProbeEvaluator:
    """Probes on the features of one encoder, fitted when they are first used."""

    def __init__(
        self, cells: CropCells, methods: Mapping[Cell, ProbeMethod], batch_size: int
    ) -> None:
        self.cells, self.methods, self.batch_size = cells, methods, batch_size
        first = next(iter(methods))  # of whose seed the features are
        self.initialization, self.seed = first.initialization, first.seed
        self.feature_cells = [replace(first, method=name) for name in (OOD, STABILITY)]
        row_of = {
            subject: row for row, subject in enumerate(cells.runner.subject_split.test_subjects)
        }
        self.rows = np.array([row_of[crop.subject] for crop in cells.test_crops])

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator of all its cells."""
        return Evaluator(
            (*self.methods, *self.feature_cells), self._score, self._explained_variance
        )

    def _explained_variance(self) -> dict[Cell, MetricValue]:
        """Share of the variance between subjects that each attribute of subgroups explains."""
        found, runner, template = {}, self.cells.runner, self.feature_cells[0]
        subgroups = runner.subgroups
        for name in dict.fromkeys(subgroup.name for subgroup in subgroups):
            value_of = {s: g.value for g in subgroups if g.name == name for s in g.subjects}
            values = [value_of[subject] for subject in runner.subject_split.test_subjects]
            found[replace(template, method=name)] = explained_variance(
                self._clean_features[:, 0], self.rows, values
            )
        return found

    def _score(self, volumes: StoredVolumes) -> dict[Cell, MetricValue]:
        features, runner = self._extract(self.cells.test_crops, volumes), self.cells.runner
        scores = {
            cell: runner.score(self.cells.prediction_rows(predict(features))).primary
            for cell, predict in self._fitted_probes.items()
        }
        return scores | {
            cell: self._feature_metric(cell, features[:, 0]) for cell in self.feature_cells
        }

    def _feature_metric(self, cell: Cell, features: FeatureRows) -> MetricValue:
        """A metric of features without labels."""
        train, clean = self._train_features[:, 0], self._clean_features[:, 0]
        number = len(self.cells.runner.subject_split.test_subjects)
        if cell.method == OOD:
            before, after = neighbour_distance(train, clean), neighbour_distance(train, features)
            return ood_auroc(before, after, self.rows, number)
        return feature_icc(clean, features, self.rows, number)

    def _extract(
        self, labelled_crops: Sequence[LabelledCrop], volumes: StoredVolumes | None = None
    ) -> NDArray[np.float32]:
        """Features (n, blocks, dim)."""
        from ssl_pipeline.evaluation.data.features import extract_features

        context = self.cells.runner.context
        encoder = context.encoder_factory(self.initialization, context.seed + self.seed)
        blocks = max(method.n_blocks for method in self.methods.values())
        crops = self.cells.crop_batches(labelled_crops, self.batch_size, volumes)
        return extract_features(encoder, crops, context.device, blocks)

    @cached_property
    def _train_features(self) -> NDArray[np.float32]:
        return self._extract(self.cells.train_crops)

    @cached_property
    def _clean_features(self) -> NDArray[np.float32]:
        return self._extract(self.cells.test_crops)

    @cached_property
    def _fitted_probes(self) -> dict[Cell, PredictFunction]:
        cells, found = self.cells, {}
        for cell, method in self.methods.items():
            found[cell] = method.fit(cells.labelled_features(cell, self._train_features), cell.seed)
        return found
