"""Probing: simple classifiers on frozen features.

The features of an encoder are computed once and used by every method, budget and draw of labelled
subjects. The pretrained encoder and the baseline differ between seeds by that draw alone; random
weights are drawn anew for every seed as well.
"""

import time
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import PIXELS, RANDOM, Cell
from ssl_pipeline.evaluation.config import Probe
from ssl_pipeline.evaluation.plan import EncoderOf, Plan, Setting, walk
from ssl_pipeline.evaluation.probes import ProbeMethod
from ssl_pipeline.evaluation.region_cells import PIXELS_NOTE, RegionCells
from ssl_pipeline.evaluation.tasks import RegionTask, TaskConfig

__all__ = ["Setting", "run_probe"]


def run_probe(task: TaskConfig, probe: Probe, setting: Setting) -> dict[str, Any]:
    """Probe a task of regions; write `cells/`, `results.json`, `costs.json` below `setting.out`.

    Returns what `results.json` holds. Cells that are there with the same key are not
    computed again. Raises UserError for a task that cannot be probed or compared by subject.
    """
    if not isinstance(task, RegionTask):
        raise UserError(
            f"Task {task.title!r} is of kind {task.kind}: probes read crops as a whole; "
            "list it for finetune alone."
        )
    cells = RegionCells(Plan(task, setting), task)
    bank = _Bank(cells, probe, setting.encoder_of)

    def compute(cell: Cell, method: ProbeMethod) -> dict[str, Any]:
        features, waited = bank.features(cell.init, cell.seed if cell.init == RANDOM else 0)
        began = time.monotonic()
        number = len(cells.train)
        fitted = method.fit(cells.known(cell, features[:number]), cell.seed)
        predicted = fitted(features[number:])
        parameters = method.parameters(features.shape[-1], cells.classes)
        return cells.content(predicted, began, parameters, feature_seconds=waited)

    everything = [
        (Cell(method.name, init, budget, seed), method)
        for init in setting.starts
        for seed in range(setting.evaluate.seeds)
        for method in probe.methods
        for budget in cells.plan.budgets(setting.evaluate.subjects)
    ]
    usual = cells.folded(cell for cell, method in everything if method.FOLDED)
    notes = (PIXELS_NOTE, *cells.notes, *usual)
    return walk(cells.plan, everything, compute, "Probing", notes)


class _Bank:
    """Frozen features of all regions, train first; the last ones asked for are kept."""

    def __init__(self, cells: RegionCells, probe: Probe, encoder_of: EncoderOf) -> None:
        self.cells, self.probe, self.encoder_of = cells, probe, encoder_of
        self.features = lru_cache(maxsize=1)(self._features)

    def _features(self, init: str, seed: int) -> tuple[NDArray[np.float32], float]:
        """Features (n, blocks, dim) and the seconds that they took."""
        began = time.monotonic()
        if init == PIXELS:
            return self.cells.pixels, time.monotonic() - began
        from ssl_pipeline.evaluation.features import features

        setting = self.cells.plan.setting
        encoder = self.encoder_of(init, setting.seed + seed)
        self.cells.plan.check_patch(encoder.patch)
        crops = self.cells.crops([*self.cells.train, *self.cells.test], self.probe.batch)
        blocks = max(method.deepest for method in self.probe.methods)
        found = features(encoder, crops, setting.device, blocks)
        return found, time.monotonic() - began
