"""Fine-tuning of a task: a head is trained, and of the encoder what each method adapts.

Every initialization gets the same heads, steps, batches and crops, and so does every method, beside
baselines: of crops, pixels + PCA with the linear probe; of voxels, a linear model of
neighbourhoods.
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
from ssl_pipeline.evaluation.records import Results
from ssl_pipeline.evaluation.runner.context import EvaluationContext, TaskRunner, run_cells
from ssl_pipeline.evaluation.runner.crop_cells import PIXELS_NOTE, CropCells
from ssl_pipeline.evaluation.tasks import CropTask, TaskConfig
from ssl_pipeline.io.atomic import sha256_json

PIXELS_PROBE_NOTE = "Beside fine-tuning, pixels + PCA are evaluated by a linear probe."
RESNET_NOTE = "small ResNet: trained from scratch with the same crops and steps."

__all__ = ["EvaluationContext", "run_finetune"]


def run_finetune(
    task: TaskConfig, finetune: Finetune, context: EvaluationContext
) -> Results | None:
    """Fine-tune a task and write `cells/`, `results.json` and `costs.json` below `context.out`.

    A segmentation also writes `predictions/CELL/SCAN.nii.gz`. Returns the results, a shard none;
    existing cells with the same key are not computed again. Raises UserError for a task that cannot
    be compared by subject.
    """
    if isinstance(task, CropTask):
        resnet = (
            {RESNET: ""} if finetune.resnet_baseline and PIXELS in context.initializations else {}
        )
        runner = TaskRunner(
            task, replace(context, initializations={**context.initializations, **resnet})
        )
        return _run_crop_task(runner, task, finetune)
    runner = TaskRunner(task, context)
    if task.external_predictions and PIXELS in context.initializations:
        initializations = {
            **context.initializations,
            EXTERNAL: _external_hash(runner, task, task.external_predictions),
        }
        runner = TaskRunner(task, replace(context, initializations=initializations))
    from ssl_pipeline.evaluation.runner.segmentation_cells import (
        SEGMENTATION_NOTE,
        SegmentationCells,
    )

    methods = [method for method in finetune.methods if method.SUPPORTS_SEGMENTATION]
    unsupported = ", ".join(
        method.TITLE for method in finetune.methods if not method.SUPPORTS_SEGMENTATION
    )
    segmentation = SegmentationCells(runner, task)
    notes = (
        SEGMENTATION_NOTE,
        *((f"Not available for segmentation: {unsupported}.",) if unsupported else ()),
        *segmentation.notes,
    )
    cells = _cells(runner, finetune, methods)
    return run_cells(runner, cells, segmentation.compute, "Fine-tuning", notes)


def _external_hash(runner: TaskRunner, task: TaskConfig, name: str) -> str:
    """Hash of external predictions; UserError where they lack a scored scan."""
    test = [entry for entry in runner.subject_split.entries if entry.split != "train"]
    for entry in test:
        if not entry.labels.get(name):
            raise UserError(
                f"Task {task.title!r}: scan {entry.id} has no label {name!r}: let the other method "
                "segment every scored scan."
            )
    return sha256_json([runner.label_maps.sha256(entry, name) for entry in test])


def _cells(
    runner: TaskRunner, finetune: Finetune, methods: Sequence[AdaptationMethod]
) -> Iterator[tuple[Cell, Finetune]]:
    evaluate = runner.context.evaluate
    budgets = runner.budgets(finetune.subjects or evaluate.subjects)
    for method in (*methods, None):  # baselines have no method
        for start in runner.context.initializations:
            seeds = 1 if start == EXTERNAL else finetune.seeds or evaluate.seeds
            for seed in range(seeds):
                for budget in budgets[-1:] if start == EXTERNAL else budgets:
                    if (start in BASELINES) == (method is None):
                        cell = Cell(method.name if method else BASELINE_METHOD, start, budget, seed)
                        yield cell, cell_section(finetune, budgets, cell, method)


def cell_section(
    finetune: Finetune, budgets: tuple[int, ...], cell: Cell, method: AdaptationMethod | None
) -> Finetune:
    """The section that determines a cell of fine-tuning; a baseline has no method."""
    if method is None:
        return finetune.for_methods()
    return finetune.for_methods(
        method, keeps_networks=finetune.keeps_networks_of(cell.subjects, budgets)
    )


def _run_crop_task(runner: TaskRunner, task: CropTask, finetune: Finetune) -> Results | None:
    cells = CropCells(runner, task)

    def compute(cell: Cell, section: Finetune) -> dict[str, Any]:
        return (
            _probe_pixels(cells, cell)
            if cell.initialization == PIXELS
            else _train_cell(cells, cell, section)
        )

    resnet = (RESNET_NOTE,) if finetune.resnet_baseline else ()
    every = list(_cells(runner, finetune, finetune.methods))
    fold_notes = cells.fold_notes(cell for cell, _ in every if cell.initialization == PIXELS)
    notes = (PIXELS_NOTE, PIXELS_PROBE_NOTE, *resnet, *cells.notes, *fold_notes)
    return run_cells(runner, every, compute, "Fine-tuning", notes)


def _train_cell(cells: CropCells, cell: Cell, section: Finetune) -> dict[str, Any]:
    """Train on the labelled crops, and predict the test crops."""
    from ssl_pipeline.evaluation.baselines.resnet import SmallResNet
    from ssl_pipeline.evaluation.finetuning.crop_model import (
        EncoderCropModel,
        predict_crops,
        train_crop_model,
    )
    from ssl_pipeline.evaluation.finetuning.optimizer import count_trained_parameters, fixed_seed
    from ssl_pipeline.evaluation.runner.networks import build_crop_model, save_network

    started = time.monotonic()
    runner, context = cells.runner, cells.runner.context
    method = next(iter(section.methods), None)
    chosen = [cells.train_crops[index] for index in cells.labelled_rows(cell)]
    seed = context.seed + cell.seed
    with fixed_seed(seed, context.device):
        model = build_crop_model(runner, cell, method) if method else SmallResNet(cells.n_classes)
        memory = train_crop_model(
            model,
            context.reader,
            runner.entries,
            chosen,
            runner.crop_size,
            section,
            method,
            seed=seed,
            device=context.device,
        )
    parameters = count_trained_parameters(model)
    if isinstance(model, EncoderCropModel) and method:
        method.merge(model.encoder)
    crops = cells.crop_batches(cells.test_crops, section.batch_size)
    predicted = predict_crops(model, crops, context.device)
    content = cells.cell_content(predicted, started, parameters, memory_bytes=memory)
    if section.keep_networks:
        content["files"] = [save_network(model, cell, context.out)]
    return content


def _probe_pixels(cells: CropCells, cell: Cell) -> dict[str, Any]:
    """A linear probe of pixels + PCA."""
    started = time.monotonic()
    method = Linear()
    number = len(cells.train_crops)
    fitted = method.fit(cells.labelled_features(cell, cells.pixel_features[:number]), cell.seed)
    predicted = fitted(cells.pixel_features[number:])
    return cells.cell_content(
        predicted, started, method.count_parameters(cells.pixel_features.shape[-1], cells.n_classes)
    )
