"""Fine-tuning: a head is trained, and of the encoder what each method adapts.

Every start gets the same heads, steps, batches and crops, and so does every method; baselines stand
beside them. For regions it is the one of probing with the linear probe, for voxels a
linear model of neighbourhoods.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import BASELINE_METHOD, BASELINES, EXTERNAL, PIXELS, RESNET, Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.runner.context import EvaluationContext, TaskRunner, run_cells
from ssl_pipeline.evaluation.runner.crop_cells import PIXELS_NOTE, CropCells
from ssl_pipeline.evaluation.tasks import CropTask, TaskConfig
from ssl_pipeline.io.atomic import sha256_json

PIXELS_PROBE_NOTE = "Beside fine-tuning, pixels + PCA are read by a linear probe."
RESNET_NOTE = "small ResNet: trained from scratch with the same crops and steps."

__all__ = ["EvaluationContext", "run_finetune"]


def run_finetune(
    task: TaskConfig, finetune: Finetune, context: EvaluationContext
) -> dict[str, Any]:
    """Fine-tune a task and write `cells/`, `results.json` and `costs.json` below `setting.out`.

    A segmentation also writes `predictions/CELL/SCAN.nii.gz`. Returns what `results.json` holds;
    cells that are there with the same key are not computed again. Raises UserError for a task that
    cannot be compared by subject.
    """
    if isinstance(task, CropTask):
        resnet = (
            {RESNET: ""} if finetune.resnet_baseline and PIXELS in context.initializations else {}
        )
        plan = TaskRunner(
            task, replace(context, initializations={**context.initializations, **resnet})
        )
        return _run_crop_task(plan, task, finetune)
    plan = TaskRunner(task, context)
    if task.external_predictions and PIXELS in context.initializations:
        starts = {
            **context.initializations,
            EXTERNAL: _external_hash(plan, task, task.external_predictions),
        }
        plan = TaskRunner(task, replace(context, initializations=starts))
    from ssl_pipeline.evaluation.runner.segmentation_cells import (
        SEGMENTATION_NOTE,
        SegmentationCells,
    )

    methods = [method for method in finetune.methods if method.SUPPORTS_SEGMENTATION]
    left = ", ".join(
        method.TITLE for method in finetune.methods if not method.SUPPORTS_SEGMENTATION
    )
    voxels = SegmentationCells(plan, task)
    notes = (
        SEGMENTATION_NOTE,
        *((f"Not made for voxels and left out: {left}.",) if left else ()),
        *voxels.notes,
    )
    return run_cells(plan, _cells(plan, finetune, methods), voxels.compute, "Fine-tuning", notes)


def _external_hash(runner: TaskRunner, task: TaskConfig, name: str) -> str:
    """Hash of what another method drew; UserError where it left a scored scan out."""
    scored = [entry for entry in runner.subject_split.entries if entry.split != "train"]
    for entry in scored:
        if not entry.labels.get(name):
            raise UserError(
                f"Task {task.title!r}: scan {entry.id} has no label {name!r}: let the other method "
                "segment every scored scan."
            )
    return sha256_json([runner.label_maps.sha256(entry, name) for entry in scored])


def _cells(
    runner: TaskRunner, finetune: Finetune, methods: Sequence[AdaptationMethod]
) -> Iterator[tuple[Cell, Finetune]]:
    evaluate = runner.context.evaluate
    budgets = runner.budgets(finetune.subjects or evaluate.subjects)
    for method in (*methods, None):  # those of baselines are none of them
        for init in runner.context.initializations:
            seeds = 1 if init == EXTERNAL else finetune.seeds or evaluate.seeds
            for seed in range(seeds):
                for budget in budgets[-1:] if init == EXTERNAL else budgets:
                    if (init in BASELINES) == (method is None):
                        cell = Cell(method.name if method else BASELINE_METHOD, init, budget, seed)
                        yield cell, cell_section(finetune, budgets, cell, method)


def cell_section(
    finetune: Finetune, budgets: tuple[int, ...], cell: Cell, method: AdaptationMethod | None
) -> Finetune:
    """What determines a cell of fine-tuning, beside the plan; no method is the baseline."""
    if method is None:
        return finetune.for_methods()
    return finetune.for_methods(
        method, keeps_networks=finetune.keeps_networks_of(cell.subjects, budgets)
    )


def _run_crop_task(runner: TaskRunner, task: CropTask, finetune: Finetune) -> dict[str, Any]:
    cells = CropCells(runner, task)

    def compute(cell: Cell, section: Finetune) -> dict[str, Any]:
        return (
            _probe_pixels(cells, cell)
            if cell.initialization == PIXELS
            else _train_cell(cells, cell, section)
        )

    resnet = (RESNET_NOTE,) if finetune.resnet_baseline else ()
    walked = list(_cells(runner, finetune, finetune.methods))
    usual = cells.fold_notes(cell for cell, _ in walked if cell.initialization == PIXELS)
    notes = (PIXELS_NOTE, PIXELS_PROBE_NOTE, *resnet, *cells.notes, *usual)
    return run_cells(runner, walked, compute, "Fine-tuning", notes)


def _train_cell(cells: CropCells, cell: Cell, section: Finetune) -> dict[str, Any]:
    """Train on the labelled regions, and predict those that are scored."""
    from ssl_pipeline.evaluation.baselines.resnet import SmallResNet
    from ssl_pipeline.evaluation.finetuning.crop_model import (
        EncoderCropModel,
        predict_crops,
        train_crop_model,
    )
    from ssl_pipeline.evaluation.finetuning.optimizer import count_trained_parameters, fixed_seed
    from ssl_pipeline.evaluation.runner.networks import build_crop_model, save_network

    began = time.monotonic()
    plan, setting, method = cells.runner, cells.runner.context, next(iter(section.methods), None)
    chosen = [cells.train_crops[index] for index in cells.labelled_rows(cell)]
    seed = setting.seed + cell.seed
    with fixed_seed(seed, setting.device):
        model = build_crop_model(plan, cell, method) if method else SmallResNet(cells.n_classes)
        memory = train_crop_model(
            model,
            setting.reader,
            plan.entries,
            chosen,
            plan.crop_size,
            section,
            method,
            seed=seed,
            device=setting.device,
        )
    parameters = count_trained_parameters(model)
    if isinstance(model, EncoderCropModel) and method:
        method.merge(model.encoder)
    crops = cells.crop_batches(cells.test_crops, section.batch_size)
    predicted = predict_crops(model, crops, setting.device)
    content = cells.cell_content(predicted, began, parameters, memory_bytes=memory)
    if section.keep_networks:
        content["files"] = [save_network(model, cell, setting.out)]
    return content


def _probe_pixels(cells: CropCells, cell: Cell) -> dict[str, Any]:
    """A linear probe of pixels + PCA."""
    began = time.monotonic()
    method = Linear()
    number = len(cells.train_crops)
    fitted = method.fit(cells.labelled_features(cell, cells.pixel_features[:number]), cell.seed)
    predicted = fitted(cells.pixel_features[number:])
    return cells.cell_content(
        predicted, began, method.count_parameters(cells.pixel_features.shape[-1], cells.n_classes)
    )
