"""Fine-tuning: a head is trained, and of the encoder what each method adapts.

Every start gets the same heads, steps, batches and crops, and so does every method; baselines stand
beside them. For regions it is the one of probing with the linear probe, for voxels a
linear model of neighbourhoods.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ssl_pipeline.atomic import sha256_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import BASELINE, BASELINES, GIVEN, PIXELS, RESNET, Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.plan import Plan, Setting, walk
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.region_cells import PIXELS_NOTE, RegionCells
from ssl_pipeline.evaluation.tasks import RegionTask, TaskConfig

PROBED_NOTE = "Beside fine-tuning, pixels + PCA are read by a linear probe."
RESNET_NOTE = "small ResNet: trained from scratch with the same crops and steps."

__all__ = ["Setting", "run_finetune"]


def run_finetune(task: TaskConfig, finetune: Finetune, setting: Setting) -> dict[str, Any]:
    """Fine-tune a task and write `cells/`, `results.json` and `costs.json` below `setting.out`.

    A segmentation also writes `predictions/CELL/SCAN.nii.gz`. Returns what `results.json` holds;
    cells that are there with the same key are not computed again. Raises UserError for a task that
    cannot be compared by subject.
    """
    if isinstance(task, RegionTask):
        resnet = {RESNET: ""} if finetune.resnet and PIXELS in setting.starts else {}
        plan = Plan(task, replace(setting, starts={**setting.starts, **resnet}))
        return _regions(plan, task, finetune)
    plan = Plan(task, setting)
    if task.given and PIXELS in setting.starts:
        starts = {**setting.starts, GIVEN: _given(plan, task, task.given)}
        plan = Plan(task, replace(setting, starts=starts))
    from ssl_pipeline.evaluation.voxel_cells import NOTE, VoxelCells

    methods = [method for method in finetune.methods if method.VOXELS]
    left = ", ".join(method.TITLE for method in finetune.methods if not method.VOXELS)
    voxels = VoxelCells(plan, task)
    notes = (
        NOTE,
        *((f"Not made for voxels and left out: {left}.",) if left else ()),
        *voxels.notes,
    )
    return walk(plan, _cells(plan, finetune, methods), voxels.compute, "Fine-tuning", notes)


def _given(plan: Plan, task: TaskConfig, name: str) -> str:
    """Hash of what another method drew; UserError where it left a scored scan out."""
    scored = [entry for entry in plan.cohort.entries if entry.split != "train"]
    for entry in scored:
        if not entry.labels.get(name):
            raise UserError(
                f"Task {task.title!r}: scan {entry.id} has no label {name!r}: let the other method "
                "segment every scored scan."
            )
    return sha256_json([plan.labels.sha256(entry, name) for entry in scored])


def _cells(
    plan: Plan, finetune: Finetune, methods: Sequence[AdaptationMethod]
) -> Iterator[tuple[Cell, Finetune]]:
    evaluate = plan.setting.evaluate
    budgets = plan.budgets(finetune.subjects or evaluate.subjects)
    for method in (*methods, None):  # those of baselines are none of them
        for init in plan.setting.starts:
            seeds = 1 if init == GIVEN else finetune.seeds or evaluate.seeds
            for seed in range(seeds):
                for budget in budgets[-1:] if init == GIVEN else budgets:
                    if (init in BASELINES) == (method is None):
                        cell = Cell(method.name if method else BASELINE, init, budget, seed)
                        yield cell, section_of(finetune, budgets, cell, method)


def section_of(
    finetune: Finetune, budgets: tuple[int, ...], cell: Cell, method: AdaptationMethod | None
) -> Finetune:
    """What determines a cell of fine-tuning, beside the plan; no method is the baseline."""
    if method is None:
        return finetune.of()
    return finetune.of(method, kept=finetune.keeps(cell.subjects, budgets))


def _regions(plan: Plan, task: RegionTask, finetune: Finetune) -> dict[str, Any]:
    cells = RegionCells(plan, task)

    def compute(cell: Cell, section: Finetune) -> dict[str, Any]:
        return _pixels(cells, cell) if cell.init == PIXELS else _trained(cells, cell, section)

    resnet = (RESNET_NOTE,) if finetune.resnet else ()
    walked = list(_cells(plan, finetune, finetune.methods))
    usual = cells.folded(cell for cell, _ in walked if cell.init == PIXELS)
    notes = (PIXELS_NOTE, PROBED_NOTE, *resnet, *cells.notes, *usual)
    return walk(plan, walked, compute, "Fine-tuning", notes)


def _trained(cells: RegionCells, cell: Cell, section: Finetune) -> dict[str, Any]:
    """Train on the labelled regions, and predict those that are scored."""
    from ssl_pipeline.evaluation.networks import keep, of_regions
    from ssl_pipeline.evaluation.optimise import seeded, trained
    from ssl_pipeline.evaluation.region_network import RegionNetwork, predict, train
    from ssl_pipeline.evaluation.resnet import SmallResNet

    began = time.monotonic()
    plan, setting, method = cells.plan, cells.plan.setting, next(iter(section.methods), None)
    chosen = [cells.train[index] for index in cells.chosen(cell)]
    seed = setting.seed + cell.seed
    with seeded(seed, setting.device):
        model = of_regions(plan, cell, method) if method else SmallResNet(cells.classes)
        memory = train(
            model,
            setting.reader,
            plan.entries,
            chosen,
            plan.size,
            section,
            method,
            seed=seed,
            device=setting.device,
        )
    parameters = trained(model)
    if isinstance(model, RegionNetwork) and method:
        method.merge(model.encoder)
    crops = cells.crops(cells.test, section.batch)
    predicted = predict(model, crops, setting.device)
    content = cells.content(predicted, began, parameters, memory_bytes=memory)
    if section.keep_networks:
        content["files"] = [keep(model, cell, setting.out)]
    return content


def _pixels(cells: RegionCells, cell: Cell) -> dict[str, Any]:
    """A linear probe of pixels + PCA."""
    began = time.monotonic()
    method = Linear()
    number = len(cells.train)
    fitted = method.fit(cells.known(cell, cells.pixels[:number]), cell.seed)
    predicted = fitted(cells.pixels[number:])
    return cells.content(predicted, began, method.parameters(cells.pixels.shape[-1], cells.classes))
