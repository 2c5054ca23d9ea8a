"""Evaluators of a task on clean or corrupted volumes: probes, networks, and feature metrics.

Probes are fitted once more on clean features, and networks are those that fine-tuning saved, all
with most labels. Features are also evaluated without labels (see `feature_analysis`), in cells
whose method is the name of the metric.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import BASELINES, RANDOM, Cell, read_cell
from ssl_pipeline.evaluation.config import Finetune, Probe, Robustness
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.metrics.scores import MetricValue, score_predictions
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
from ssl_pipeline.evaluation.tasks import CropTask
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
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
    evaluate = runner.context.evaluate
    encoders = [name for name in runner.context.initializations if name not in BASELINES]
    cells = CropCells(runner, runner.task) if isinstance(runner.task, CropTask) else None
    found: list[Evaluator] = []
    if cells:
        most = runner.budgets(evaluate.subjects)[-1]
        seeds = range(evaluate.seeds)
        for name in encoders:  # seeds share the features of a trained encoder
            seed_groups = [[seed] for seed in seeds] if name == RANDOM else [list(seeds)]
            found += [
                _ProbeEvaluator(cells, inputs.probe, name, most, each).evaluator
                for each in seed_groups
            ]
    left_out = []
    for method in inputs.finetune.methods:
        if cells or method.SUPPORTS_SEGMENTATION:
            for name in encoders:
                own = _network_cells(runner, inputs, method, name)
                if not own:
                    left_out.append(f"{method.TITLE} from {name}")
                found += [_network_evaluator(runner, cells, inputs, method, cell) for cell in own]
    if not found:
        raise UserError(
            f"Task {runner.task.title!r}: nothing can be evaluated on corrupted scans, for every "
            "method has cells that failed: run the stage finetune again, which computes only those."
        )
    notes = [f"Left out, for cells of it failed: {', '.join(left_out)}."] if left_out else []
    return found, notes


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
        key = runner.cell_key(cell, cell_section(finetune, budgets, cell, method))
        if record is None or record.key != key:
            raise UserError(
                f"Fine-tuning has not kept the network of {cell.name} for the present settings: "
                "set finetune.keep_networks, and run the stage finetune again."
            )
        if record.failed:
            return []
    return cells


def _network_evaluator(
    runner: TaskRunner,
    cells: CropCells | None,
    inputs: RobustnessInputs,
    method: AdaptationMethod,
    cell: Cell,
) -> Evaluator:
    """The evaluator of a saved network."""
    if cells:
        return _crop_evaluator(cells, inputs, method, cell)
    assert isinstance(runner.task, Segmentation)
    return _segmentation_evaluator(runner, runner.task, inputs, method, cell)


class _ProbeEvaluator:
    """Probes on the features of one encoder, fitted when they are first used."""

    def __init__(
        self,
        cells: CropCells,
        probe: Probe,
        initialization: str,
        subjects: int,
        seeds: Sequence[int],
    ) -> None:
        self.cells, self.probe, self.initialization, self.seed = (
            cells,
            probe,
            initialization,
            seeds[0],
        )
        self.methods = {
            Cell(method.name, initialization, subjects, seed): method
            for seed in seeds
            for method in probe.methods
        }
        self.feature_cells = [
            Cell(n, initialization, subjects, self.seed) for n in (OOD, STABILITY)
        ]
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
        features = self._extract(self.cells.test_crops, volumes)
        scores = {
            cell: _score_crops(self.cells, predict(features))
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
        blocks = max(method.n_blocks for method in self.probe.methods)
        crops = self.cells.crop_batches(labelled_crops, self.probe.batch_size, volumes)
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


def _crop_evaluator(
    cells: CropCells, inputs: RobustnessInputs, method: AdaptationMethod, cell: Cell
) -> Evaluator:
    """The evaluator of a saved network for crops."""

    def score(volumes: StoredVolumes) -> dict[Cell, MetricValue]:
        from ssl_pipeline.evaluation.finetuning.crop_model import predict_crops
        from ssl_pipeline.evaluation.runner.networks import build_crop_model, load_network

        device = cells.runner.context.device
        network = load_network(
            build_crop_model(cells.runner, cell, method), method, cell, inputs.networks
        )
        crops = cells.crop_batches(cells.test_crops, inputs.finetune.batch_size, volumes)
        return {cell: _score_crops(cells, predict_crops(network.to(device), crops, device))}

    return Evaluator((cell,), score)


def _segmentation_evaluator(
    runner: TaskRunner,
    task: Segmentation,
    inputs: RobustnessInputs,
    method: AdaptationMethod,
    cell: Cell,
) -> Evaluator:
    """The evaluator of a saved segmentation network."""

    def score(volumes: StoredVolumes) -> dict[Cell, MetricValue]:
        from ssl_pipeline.evaluation.runner.networks import build_segmentation_model, load_network
        from ssl_pipeline.evaluation.runner.segmentation_cells import SegmentationCells

        built = build_segmentation_model(runner, cell, method, inputs.finetune)
        network = load_network(built, method, cell, inputs.networks).to(runner.context.device)
        segmentation = SegmentationCells(runner, task)
        return {
            cell: _primary_metric(
                runner, segmentation.score_network(network, volumes, inputs.finetune)
            )
        }

    return Evaluator((cell,), score)


def _score_crops(cells: CropCells, predicted: NDArray[np.float64]) -> MetricValue:
    return _primary_metric(cells.runner, cells.prediction_rows(predicted))


def _primary_metric(runner: TaskRunner, rows: Sequence[dict[str, Any]]) -> MetricValue:
    """The task's own metric of predictions."""
    return next(iter(score_predictions(runner.subject_split.test_subjects, rows).metrics.values()))
