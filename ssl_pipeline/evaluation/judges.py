"""Who judges a task on volumes, as they are or worse: probes, networks, and features themselves.

Probes are fitted once more on clean features, and the networks of fine-tuning are those that were
kept, all with most labels. Features are judged without labels (see `embedding`), and stand among
the cells by names of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.atomic import read_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import BASELINES, FAILED, RANDOM, Cell
from ssl_pipeline.evaluation.config import Finetune, Probe, Robustness
from ssl_pipeline.evaluation.crops import Volumes
from ssl_pipeline.evaluation.embedding import Features, share_of, stability, strangeness, told_apart
from ssl_pipeline.evaluation.finetune import section_of
from ssl_pipeline.evaluation.metrics import Measured, scored
from ssl_pipeline.evaluation.plan import Plan
from ssl_pipeline.evaluation.probes.predictor import Fitted
from ssl_pipeline.evaluation.region_cells import RegionCells
from ssl_pipeline.evaluation.regions import Region
from ssl_pipeline.evaluation.tasks import RegionTask
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.preprocess.config import Preprocess

# What features themselves are judged by, where others have a method.
OUTLIERS, STABILITY = "outliers", "stability"


@dataclass(frozen=True)
class Judge:
    """What scores some cells on volumes, as they are or worse."""

    cells: tuple[Cell, ...]
    score: Callable[[Volumes], dict[Cell, Measured]]
    # How much of what it sees is groups of subjects; a cell has the groups' name for a method.
    shares: Callable[[], dict[Cell, Measured]] = dict


@dataclass(frozen=True)
class Tried:
    """What is tried, and on what."""

    robustness: Robustness
    probe: Probe
    finetune: Finetune
    preprocess: Preprocess
    networks: Path  # folder of the task's fine-tuning, with the networks that it kept


def judges(plan: Plan, tried: Tried) -> tuple[list[Judge], list[str]]:
    """All that judged the task with most labels, and what has to be said of it."""
    evaluate = plan.setting.evaluate
    encoders = [start for start in plan.setting.starts if start not in BASELINES]
    cells = RegionCells(plan, plan.task) if isinstance(plan.task, RegionTask) else None
    found: list[Judge] = []
    if cells:
        most = plan.budgets(evaluate.subjects)[-1]
        seeds = range(evaluate.seeds)
        for start in encoders:  # seeds share the features of a trained encoder
            alike = [[seed] for seed in seeds] if start == RANDOM else [list(seeds)]
            found += [_Probes(cells, tried.probe, start, most, each).judge for each in alike]
    left = []
    for method in tried.finetune.methods:
        if cells or method.VOXELS:
            for start in encoders:
                own = _networks(plan, tried, method, start)
                if not own:
                    left.append(f"{method.TITLE} from {start}")
                found += [_network(plan, cells, tried, method, cell) for cell in own]
    if not found:
        raise UserError(
            f"Task {plan.task.title!r}: nothing can be tried on worse scans, for every method has "
            "cells that failed: run the stage finetune again, which computes them alone."
        )
    notes = [f"Left out, for cells of it failed: {', '.join(left)}."] if left else []
    return found, notes


def _networks(plan: Plan, tried: Tried, method: AdaptationMethod, start: str) -> list[Cell]:
    """The cells of a row with most labels; none where one failed.

    Raises UserError where fine-tuning has not kept their networks, or kept those of other dials.
    """
    finetune, evaluate = tried.finetune, plan.setting.evaluate
    budgets = plan.budgets(finetune.subjects or evaluate.subjects)
    seeds = range(finetune.seeds or evaluate.seeds)
    cells = [Cell(method.name, start, budgets[-1], seed) for seed in seeds]
    for cell in cells:
        path = cell.path(tried.networks)
        content = read_json(path) if path.exists() else {}
        if content.get("key") != plan.key(cell, section_of(finetune, budgets, cell, method)):
            raise UserError(
                f"Fine-tuning has not kept the network of {cell.name} for the present dials: set "
                "finetune.keep_networks, and run the stage finetune again."
            )
        if FAILED in content:
            return []
    return cells


def _network(
    plan: Plan, cells: RegionCells | None, tried: Tried, method: AdaptationMethod, cell: Cell
) -> Judge:
    """A network that was kept."""
    if cells:
        return _reader(cells, tried, method, cell)
    assert isinstance(plan.task, Segmentation)
    return _segmenter(plan, plan.task, tried, method, cell)


class _Probes:
    """Simple classifiers on the features of one encoder, fitted when they are first asked."""

    def __init__(
        self, cells: RegionCells, probe: Probe, start: str, subjects: int, seeds: Sequence[int]
    ) -> None:
        self.cells, self.probe, self.start, self.seed = cells, probe, start, seeds[0]
        self.methods = {
            Cell(method.name, start, subjects, seed): method
            for seed in seeds
            for method in probe.methods
        }
        self.features = [Cell(n, start, subjects, self.seed) for n in (OUTLIERS, STABILITY)]
        place = {subject: row for row, subject in enumerate(cells.plan.cohort.test)}
        self.rows = np.array([place[region.subject] for region in cells.test])

    @property
    def judge(self) -> Judge:
        """Of all its cells."""
        return Judge((*self.methods, *self.features), self._score, self._shares)

    def _shares(self) -> dict[Cell, Measured]:
        """How much of the differences between subjects is what groups them."""
        found, plan, like = {}, self.cells.plan, self.features[0]
        for name in dict.fromkeys(group.name for group in plan.groups):
            of = {s: g.value for g in plan.groups if g.name == name for s in g.subjects}
            told = [of[subject] for subject in plan.cohort.test]
            found[replace(like, method=name)] = share_of(self._clean[:, 0], self.rows, told)
        return found

    def _score(self, volumes: Volumes) -> dict[Cell, Measured]:
        seen = self._seen(self.cells.test, volumes)
        scores = {cell: _scored(self.cells, told(seen)) for cell, told in self._fitted.items()}
        return scores | {cell: self._said(cell, seen[:, 0]) for cell in self.features}

    def _said(self, cell: Cell, seen: Features) -> Measured:
        """What features say without labels."""
        train, clean = self._train[:, 0], self._clean[:, 0]
        number = len(self.cells.plan.cohort.test)
        if cell.method == OUTLIERS:
            known, worse = strangeness(train, clean), strangeness(train, seen)
            return told_apart(known, worse, self.rows, number)
        return stability(clean, seen, self.rows, number)

    def _seen(
        self, regions: Sequence[Region], volumes: Volumes | None = None
    ) -> NDArray[np.float32]:
        """Features (n, blocks, dim)."""
        from ssl_pipeline.evaluation.features import features

        setting = self.cells.plan.setting
        encoder = setting.encoder_of(self.start, setting.seed + self.seed)
        blocks = max(method.deepest for method in self.probe.methods)
        crops = self.cells.crops(regions, self.probe.batch, volumes)
        return features(encoder, crops, setting.device, blocks)

    @cached_property
    def _train(self) -> NDArray[np.float32]:
        return self._seen(self.cells.train)

    @cached_property
    def _clean(self) -> NDArray[np.float32]:
        return self._seen(self.cells.test)

    @cached_property
    def _fitted(self) -> dict[Cell, Fitted]:
        cells, found = self.cells, {}
        for cell, method in self.methods.items():
            found[cell] = method.fit(cells.known(cell, self._train), cell.seed)
        return found


def _reader(cells: RegionCells, tried: Tried, method: AdaptationMethod, cell: Cell) -> Judge:
    """A network for regions that was kept."""

    def score(volumes: Volumes) -> dict[Cell, Measured]:
        from ssl_pipeline.evaluation.networks import kept, of_regions
        from ssl_pipeline.evaluation.region_network import predict

        device = cells.plan.setting.device
        network = kept(of_regions(cells.plan, cell, method), method, cell, tried.networks)
        crops = cells.crops(cells.test, tried.finetune.batch, volumes)
        return {cell: _scored(cells, predict(network.to(device), crops, device))}

    return Judge((cell,), score)


def _segmenter(
    plan: Plan, task: Segmentation, tried: Tried, method: AdaptationMethod, cell: Cell
) -> Judge:
    """A network for voxels that was kept."""

    def score(volumes: Volumes) -> dict[Cell, Measured]:
        from ssl_pipeline.evaluation.networks import kept, of_voxels
        from ssl_pipeline.evaluation.voxel_cells import VoxelCells

        built = of_voxels(plan, cell, method, tried.finetune)
        network = kept(built, method, cell, tried.networks).to(plan.setting.device)
        voxels = VoxelCells(plan, task)
        return {cell: _main(plan, voxels.overlaps(network, volumes, tried.finetune))}

    return Judge((cell,), score)


def _scored(cells: RegionCells, predicted: NDArray[np.float64]) -> Measured:
    return _main(cells.plan, cells.rows(predicted))


def _main(plan: Plan, rows: Sequence[dict[str, Any]]) -> Measured:
    """The task's own metric of predictions."""
    return next(iter(scored(plan.cohort.test, rows).measures.values()))
