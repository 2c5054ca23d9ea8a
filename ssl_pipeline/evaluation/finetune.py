"""Fine-tuning: a head is trained, and of the encoder what each method adapts.

Every start gets the same heads, steps, batches and crops, and so does every method; the baseline of
pixels stands beside them. For classes it is the one of probing with logistic regression, for voxels
a linear model of neighbourhoods.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import BASELINE, PIXELS, Cell
from ssl_pipeline.evaluation.class_cells import PIXELS_NOTE, ClassCells
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.plan import Plan, Setting, walk
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.tasks import RegionTask, TaskConfig
from ssl_pipeline.section import Section

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

    methods = [method for method in finetune.methods if method.VOXELS]
    left = ", ".join(method.TITLE for method in finetune.methods if not method.VOXELS)
    notes = (NOTE, *((f"Not made for voxels and left out: {left}.",) if left else ()))
    voxels = VoxelCells(plan, task, finetune)
    return walk(plan, _cells(plan, finetune, methods), voxels.compute, "Fine-tuning", notes)


def _cells(
    plan: Plan, finetune: Finetune, methods: Sequence[AdaptationMethod]
) -> Iterator[tuple[Cell, Section]]:
    evaluate = plan.setting.evaluate
    budgets = plan.budgets(finetune.subjects or evaluate.subjects)
    for method in (*methods, None):  # the baseline of pixels is none of them
        for init in plan.setting.starts:
            for seed in range(finetune.seeds or evaluate.seeds):
                for budget in budgets:
                    if (init == PIXELS) == (method is None):
                        cell = Cell(method.name if method else BASELINE, init, budget, seed)
                        yield cell, section_of(finetune, budgets, cell, method)


def section_of(
    finetune: Finetune, budgets: tuple[int, ...], cell: Cell, method: AdaptationMethod | None
) -> Finetune:
    """What determines a cell of fine-tuning, beside the plan; no method is the baseline."""
    if method is None:
        return finetune.of()
    return finetune.of(method, kept=finetune.keeps(cell.subjects, budgets))


def _classes(plan: Plan, task: RegionTask, finetune: Finetune) -> dict[str, Any]:
    cells = ClassCells(plan, task)
    methods: dict[str, AdaptationMethod] = {m.name: m for m in finetune.methods}

    def compute(cell: Cell) -> dict[str, Any]:
        if cell.init == PIXELS:
            return _baseline(cells, cell, len(task.names))
        return _adapted(cells, cell, finetune, methods[cell.method])

    note = f"{PIXELS_NOTE} In this table it is read by logistic regression."
    walked = _cells(plan, finetune, finetune.methods)
    return walk(plan, walked, compute, "Fine-tuning", (note, *cells.notes))


def _adapted(
    cells: ClassCells, cell: Cell, finetune: Finetune, method: AdaptationMethod
) -> dict[str, Any]:
    """Train on the labelled regions, and predict those that are scored."""
    from ssl_pipeline.evaluation import classify
    from ssl_pipeline.evaluation.networks import classifier, keep
    from ssl_pipeline.evaluation.optimise import seeded, trained

    began = time.monotonic()
    plan, setting = cells.plan, cells.plan.setting
    chosen = [cells.train[index] for index in cells.chosen(cell)]
    seed = setting.seed + cell.seed
    with seeded(seed, setting.device):
        model = classifier(plan, cell, method)
        memory = classify.train(
            model,
            setting.reader,
            plan.entries,
            chosen,
            plan.size,
            finetune,
            method,
            seed=seed,
            device=setting.device,
        )
    parameters = trained(model)
    method.merge(model.encoder)
    crops = cells.crops(cells.test, finetune.batch)
    probability = classify.predict(model, crops, setting.device)
    content = cells.content(probability, began, parameters, memory_bytes=memory)
    if finetune.keeps(cell.subjects, plan.budgets(finetune.subjects or setting.evaluate.subjects)):
        content["files"] = [keep(model, cell, setting.out)]
    return content


def _baseline(cells: ClassCells, cell: Cell, n_classes: int) -> dict[str, Any]:
    """Logistic regression on pixels + PCA."""
    began = time.monotonic()
    chosen = cells.chosen(cell)
    method = Linear()
    fitted = method.fit(
        cells.pixels[: len(cells.train)][chosen],
        cells.targets[chosen],
        cells.subjects[chosen],
        n_classes,
        cell.seed,
    )
    probability = fitted(cells.pixels[len(cells.train) :])
    return cells.content(probability, began, method.parameters(cells.pixels.shape[1], n_classes))
