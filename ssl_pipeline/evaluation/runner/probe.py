"""Probing of a task: simple classifiers on frozen features.

The features of an encoder are computed once and used by every method, budget and draw of labelled
subjects. The pretrained encoder and the baseline differ between seeds by that draw alone; random
weights are also drawn anew for every seed.
"""

import time
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.cells import PIXELS, RANDOM, Cell
from ssl_pipeline.evaluation.config import Probe
from ssl_pipeline.evaluation.probes import ProbeMethod
from ssl_pipeline.evaluation.records import Results
from ssl_pipeline.evaluation.runner.context import (
    EncoderFactory,
    EvaluationContext,
    TaskRunner,
    run_cells,
)
from ssl_pipeline.evaluation.runner.crop_cells import PIXELS_NOTE, CropCells
from ssl_pipeline.evaluation.runner.probe_run import ProbeRun
from ssl_pipeline.evaluation.tasks.task import Task

FEATURES_NOTE = (
    "{name}: vectors of whole scans that another encoder made. It is not known which subjects that "
    "encoder was trained on, so some of those that are scored may be among them."
)

__all__ = ["EvaluationContext", "crop_probe_run", "run_probe"]


def run_probe(task: Task, probe: Probe, context: EvaluationContext) -> Results | None:
    """Probe a task; write `cells/`, `results.json`, `costs.json` below `context.out`.

    Returns the results, a shard none. Existing cells with the same key are not computed again.
    Raises UserError for a task that cannot be probed or compared by subject.
    """
    run = task.probe_run(TaskRunner(task, context), probe)
    return run_cells(run.runner, run.cells, run.compute, "Probing", run.notes)


def crop_probe_run(cells: CropCells, probe: Probe) -> ProbeRun:
    """The probing of a task of crops: every method on frozen features."""
    context = cells.runner.context
    cache = _FeatureCache(cells, probe, context.encoder_factory)

    def compute(cell: Cell, method: ProbeMethod) -> dict[str, Any]:
        features, feature_seconds = cache.features(
            cell.initialization, cell.seed if cell.initialization == RANDOM else 0
        )
        started = time.monotonic()
        number = len(cells.train_crops)
        fitted = method.fit(cells.labelled_features(cell, features[:number]), cell.seed)
        predicted = fitted(features[number:])
        parameters = method.count_parameters(features.shape[-1], cells.n_classes)
        return cells.cell_content(predicted, started, parameters, feature_seconds=feature_seconds)

    every = [
        (Cell(method.name, name, budget, seed), method)
        for name in context.initializations
        for seed in range(context.evaluate.seeds)
        for method in probe.methods
        for budget in cells.runner.budgets(context.evaluate.subjects)
    ]
    foreign = (FEATURES_NOTE.format(name=name) for name in context.scan_features)
    notes = (PIXELS_NOTE, *foreign, *cells.notes, *cells.fold_notes(every))
    return ProbeRun(cells.runner, every, compute, notes)


class _FeatureCache:
    """Cache of the frozen features of all crops, training crops first: of the last encoder."""

    def __init__(self, cells: CropCells, probe: Probe, encoder_factory: EncoderFactory) -> None:
        self.cells, self.probe, self.encoder_factory = cells, probe, encoder_factory
        self.features = lru_cache(maxsize=1)(self._compute_features)

    def _compute_features(
        self, initialization: str, seed: int
    ) -> tuple[NDArray[np.float32], float]:
        """Features (n, blocks, dim) and the seconds that computing them took."""
        started = time.monotonic()
        if initialization == PIXELS:
            return self.cells.pixel_features, time.monotonic() - started
        context = self.cells.runner.context
        if initialization in context.scan_features:
            vectors = context.scan_features[initialization].vectors
            rows = [vectors[c.scan] for c in (*self.cells.train_crops, *self.cells.test_crops)]
            return np.stack(rows)[:, None], time.monotonic() - started
        from ssl_pipeline.evaluation.data.features import extract_features

        encoder = self.encoder_factory(initialization, context.seed + seed)
        self.cells.runner.check_patch(encoder.patch)
        crops = self.cells.crop_batches(
            [*self.cells.train_crops, *self.cells.test_crops], self.probe.batch_size
        )
        blocks = max(method.n_blocks for method in self.probe.methods)
        found = extract_features(encoder, crops, context.device, blocks)
        return found, time.monotonic() - started
