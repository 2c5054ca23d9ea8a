"""Fine-tuning: encoder and head are trained together, from pretrained and from random weights.

Both starts get the same head, steps, batches and crops; the baseline of pixels stands beside them.
For classes it is the one of probing with logistic regression, for voxels a linear model of
neighbourhoods.
"""

import time
from collections.abc import Iterator
from typing import Any

from ssl_pipeline.evaluation.cells import PIXELS, Cell
from ssl_pipeline.evaluation.class_cells import PIXELS_NOTE, ClassCells
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.plan import Plan, Setting, walk
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.tasks import RegionTask, TaskConfig
from ssl_pipeline.section import Section

METHOD = "fine-tuning"
__all__ = ["Setting", "run_finetune"]


def run_finetune(task: TaskConfig, finetune: Finetune, setting: Setting) -> dict[str, Any]:
    """Fine-tune a task and write `cells/`, `results.json` and `costs.json` below `setting.out`.

    A segmentation also writes `predictions/CELL/SCAN.nii.gz`. Returns what `results.json` holds;
    cells that are there with the same key are not computed again. Raises UserError for a task that
    cannot be compared by subject.
    """
    plan = Plan(task, setting)
    if isinstance(task, RegionTask):
        return _classes(plan, task, finetune)
    from ssl_pipeline.evaluation.voxel_cells import NOTE, VoxelCells

    voxels = VoxelCells(plan, task, finetune)
    return walk(plan, _cells(plan, finetune), voxels.compute, "Fine-tuning", (NOTE,))


def _cells(plan: Plan, finetune: Finetune) -> Iterator[tuple[Cell, Section]]:
    evaluate = plan.setting.evaluate
    for init in plan.setting.inits:
        for seed in range(finetune.seeds or evaluate.seeds):
            for budget in plan.budgets(finetune.subjects or evaluate.subjects):
                yield Cell(METHOD, init, budget, seed), finetune


def _classes(plan: Plan, task: RegionTask, finetune: Finetune) -> dict[str, Any]:
    cells = ClassCells(plan, task)

    def compute(cell: Cell) -> dict[str, Any]:
        began = time.monotonic()
        if cell.init == PIXELS:
            return _baseline(cells, cell, len(task.names), began)
        from ssl_pipeline.evaluation import classify
        from ssl_pipeline.evaluation.optimise import seeded, trained

        chosen = [cells.train[index] for index in cells.chosen(cell)]
        seed = plan.setting.seed + cell.seed
        encoder = plan.setting.encoder_of(cell.init, seed)
        plan.check_patch(encoder.patch)
        with seeded(seed, plan.setting.device):
            model = classify.Classifier(encoder, len(task.names))
            classify.train(
                model,
                plan.setting.reader,
                plan.entries,
                chosen,
                plan.size,
                finetune,
                seed=seed,
                device=plan.setting.device,
            )
        crops = cells.crops(cells.test, finetune.batch)
        probability = classify.predict(model, crops, plan.setting.device)
        return cells.content(probability, began, trained(model))

    note = f"{PIXELS_NOTE} In this table it is read by logistic regression."
    return walk(plan, _cells(plan, finetune), compute, "Fine-tuning", (note, *cells.notes))


def _baseline(cells: ClassCells, cell: Cell, n_classes: int, began: float) -> dict[str, Any]:
    """Logistic regression on pixels + PCA."""
    chosen = cells.chosen(cell)
    method = Linear()
    probability = method.predict(
        cells.pixels[: len(cells.train)][chosen],
        cells.targets[chosen],
        cells.subjects[chosen],
        cells.pixels[len(cells.train) :],
        n_classes,
        cell.seed,
    )
    return cells.content(probability, began, method.parameters(cells.pixels.shape[1], n_classes))
