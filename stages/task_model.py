"""The model of a task that `finetune` leaves: one fine-tuned network, ready to predict."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_pipeline.evaluation.cells import Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.cost_model import (
    EvaluatedTask,
    EvaluationCost,
    calibration_flops,
    finetune_cost,
)
from ssl_pipeline.evaluation.metrics.metric import METRICS
from ssl_pipeline.evaluation.records import Results, read_results
from ssl_pipeline.evaluation.runner.context import EvaluationContext, TaskRunner
from ssl_pipeline.evaluation.runner.finetune import cell_section, model_cell
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import read_manifest
from ssl_pipeline.export.stored_values import StoredValues, stored_values_of
from ssl_pipeline.export.task_model.manifest import MODEL_FILES, MODEL_MANIFEST, ModelScore
from ssl_pipeline.export.task_model.similarity import MAX_SCANS
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.volumes.inventory import Inventory, read_salt_fingerprint
from stages.core import layout
from stages.core.stage import StageResult
from stages.core.study import Study

OUTPUTS = tuple(
    f"{layout.MODEL_FOLDER}/{name}"
    for name in (MODEL_MANIFEST, *MODEL_FILES, training_subjects.FILE_NAME, "*.md")
)


def finetune_cost_with_model(of: EvaluatedTask) -> EvaluationCost:
    """Cost of fine-tuning on a task, and of the model that it leaves."""
    cost = finetune_cost(of)
    if not of.has_model:
        return cost
    files, disk_bytes = cost.files + len(OUTPUTS), cost.disk_bytes + of.network_bytes
    flops = cost.flops + calibration_flops(of)
    return replace(cost, files=files, disk_bytes=disk_bytes, flops=flops)


def with_task_model(
    study: Study, task: str, finetune: Finetune, context: EvaluationContext, result: StageResult
) -> StageResult:
    """Write the model of a task, if it has one, and add its files to the result of the stage."""
    runner = TaskRunner(study.tasks[task], context)
    cell = model_cell(runner, finetune)
    results = read_results(context.out)
    if cell is None or any(failed.key == cell.key for failed in results.failed):
        return result
    folder = context.out / layout.MODEL_FOLDER
    _write_model(study, runner, finetune, cell, results, folder)
    result.files.extend([folder / MODEL_MANIFEST, folder / training_subjects.FILE_NAME])
    result.indexed_files.extend(folder / name for name in MODEL_FILES)
    return result


def _write_model(
    study: Study,
    runner: TaskRunner,
    finetune: Finetune,
    cell: Cell,
    results: Results,
    folder: Path,
) -> None:
    """Write the model's folder, and the list of its training subjects."""
    from ssl_pipeline.evaluation.runner.calibration import calibrate
    from ssl_pipeline.evaluation.runner.finetune_cells import SavedNetwork, settled_section
    from ssl_pipeline.evaluation.runner.networks import load_network
    from ssl_pipeline.export.task_model.bundle import save_model, training_vectors

    context, (method, *_) = runner.context, runner.task.supported_methods(finetune)
    section = cell_section(runner, finetune, cell, method)
    encoder = context.encoder_factory(cell.initialization, context.seed + cell.seed)
    saved = SavedNetwork(cell, method, section, context.out)
    network = load_network(runner.task.build_network(encoder, method, section), saved)
    network, section = network.to(context.device), settled_section(saved)
    entries = [entry for entry in runner.subject_split.entries if entry.split == "train"]
    chosen = [entries[at] for at in _spread(len(entries), MAX_SCANS)]
    volumes = (PreparedVolume(context.reader.read_volume(entry.id), entry.meta) for entry in chosen)
    bundle = read_manifest(study.encoders[cell.initialization])
    contract = {
        "quality": bundle.quality,
        "stored_values": _stored_values(study, entries),
        "preprocess": study.preprocess.for_roots({entry.root for entry in entries}),
        "task": runner.task,
        "model": bundle.model,
        "finetune": section,
        "crop_voxels": runner.crop_size,
        "calibration": calibrate(runner, network, section),
        "training_summary": _training_summary(study, runner, section, cell, entries),
        "split": results.split,
        "n_scored_subjects": results.n_test_subjects,
        "confidence": results.confidence,
        "scores": _scores(results, cell),
    }
    save_model(folder, network, contract, training_vectors(network, runner.crop_size, volumes))
    training_subjects.write(
        folder,
        [entry.id for entry in entries],
        context.catalog.entries,
        read_salt_fingerprint(layout.inventory_table(study)),
        training_subjects.read(study.encoders[cell.initialization]),
    )


def _training_summary(
    study: Study, runner: TaskRunner, section: Finetune, cell: Cell, entries: list[Entry]
) -> dict[str, Any]:
    """What the model was trained on, and how."""
    (method,) = section.methods
    return {
        "study": study.name,
        "initialization": cell.initialization,
        "method": method.TITLE,
        "subjects": len(runner.subject_split.train_subjects),
        "scans": len(entries),
        "modalities": sorted({entry.modality for entry in entries}),
        "steps": section.steps,
        "seed": cell.seed,
    }


def _scores(results: Results, cell: Cell) -> tuple[ModelScore, ...]:
    """Scores of the networks that were trained as the model was, in all metrics."""
    row = next(row for row in results.rows if row.key == cell.key)
    estimates = {results.metric: row, **row.other_metrics}
    return tuple(
        ModelScore(metric=METRICS[name].title, mean=each.mean, low=each.low, high=each.high)
        for name, each in estimates.items()
    )


def _stored_values(study: Study, entries: list[Entry]) -> tuple[StoredValues, ...]:
    known = {entry.id for entry in entries}
    scans = Inventory.read(layout.inventory_table(study)).accepted_scans
    return stored_values_of(scan for scan in scans if scan.id in known)


def _spread(n: int, most: int) -> list[int]:
    """At most `most` of n indices, evenly spread."""
    return sorted({int(at) for at in np.linspace(0, n - 1, min(n, most))})
