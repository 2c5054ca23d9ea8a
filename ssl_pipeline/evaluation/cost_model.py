"""Cost model of evaluating a task: files, disk, memory, FLOPs and seconds.

All of it is counted from the task, the sections and the sizes of the stored volumes; nothing is
opened, and torch is not imported.
"""

import math
from dataclasses import dataclass

from ssl_pipeline.evaluation.cells import BASELINES, PIXELS, RANDOM
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.runner.subject_splits import resolve_budgets
from ssl_pipeline.evaluation.tasks import CropTask, TaskConfig
from ssl_pipeline.evaluation.tasks.crop_classification import CropClassification
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.cost import FORWARD_PASSES_PER_STEP
from ssl_pipeline.types import Triple

BASE_BYTES = 690e6  # a process that has imported torch and scikit-learn
CROP_BYTES, CLASS_BYTES = 130, 18  # a prediction in a cell's file, and each class's share of it
SCAN_BYTES = 300  # a segmented scan in a cell's file
CELL_BYTES = 350  # the rest of a cell, in its file and in the tables
MAP_BYTES = 0.012  # a voxel of a packed map of classes
# Record, manifest, provenance, results, costs, test accesses, lock.
RECORD_FILES, RECORD_BYTES = 7, 5_500
HEAD_NUMBERS_PER_VOXEL = 60  # activations that a segmentation head keeps
RESNET_FLOPS = 5_000  # of the small ResNet and a voxel, forward; it has 3,700
HEAD_S = 0.2  # fitting a simple classifier
CORRUPTION_S, CORRUPTION_BYTES = 2e-7, 24  # corrupting a voxel
CACHED_VOLUMES = 8  # corrupted ones; evaluators read scan by scan


@dataclass(frozen=True)
class CostInputs:
    """What is evaluated, and the number and sizes of the task's scans."""

    initializations: tuple[str, ...]
    writes_label_maps: bool  # on the stored grid; trials of an ablation share those of the study
    train_subjects: int
    train_scans: int
    test_scans: int
    voxels: tuple[float, ...]  # of all of them, stored
    test_voxels: float  # of those that are scored, stored
    raw_test_voxels: int  # of the same, in their own grids


@dataclass(frozen=True)
class EvaluationCost:
    """Cost of one evaluation stage on one task."""

    files: int
    disk_bytes: float
    memory_bytes: float
    flops: float
    seconds: float  # of work that FLOPs do not measure


def probe_cost(
    task: TaskConfig,
    probe: Probe,
    evaluate: Evaluate,
    model: ModelConfig,
    crop: Triple,
    inputs: CostInputs,
) -> EvaluationCost:
    """Cost of probing a task with every method, initialization, seed and budget."""
    fits = (
        len(inputs.initializations)
        * evaluate.seeds
        * len(resolve_budgets(evaluate.subjects, inputs.train_subjects))
    )
    seconds = fits * sum(method.FIT_SECONDS for method in probe.methods)
    encoders = sum(
        evaluate.seeds if s == RANDOM else s not in BASELINES for s in inputs.initializations
    )
    forwards = encoders * _count_crops(task, inputs.train_scans + inputs.test_scans)
    flops = float(forwards * model.forward_flops(model.token_count(crop), crop))
    memory = 16.0 * probe.batch_size * math.prod(crop)
    return _cost(task, fits * len(probe.methods), inputs, flops, memory, seconds)


def finetune_cost(
    task: TaskConfig,
    finetune: Finetune,
    evaluate: Evaluate,
    model: ModelConfig,
    crop: Triple,
    inputs: CostInputs,
) -> EvaluationCost:
    """Cost of fine-tuning on a task from every initialization, seed and budget."""
    seeds = finetune.seeds or evaluate.seeds
    budgets = resolve_budgets(finetune.subjects or evaluate.subjects, inputs.train_subjects)
    networks = (
        _count_supported_methods(task, finetune)
        * len(set(inputs.initializations) - set(BASELINES))
        * seeds
        * len(budgets)
    )
    plain = (PIXELS in inputs.initializations) * seeds * len(budgets)  # has no network
    resnets = plain if finetune.resnet_baseline and isinstance(task, CropTask) else 0
    external = int(
        getattr(task, "external_predictions", None) is not None and PIXELS in inputs.initializations
    )
    cells = networks + plain + resnets + external
    forwards, each = _forward_passes(task, finetune, model, crop, inputs)
    numbers = model.activation_count(model.token_count(crop), crop)
    if not isinstance(task, CropTask):
        numbers += HEAD_NUMBERS_PER_VOXEL * math.prod(crop)
    passes = FORWARD_PASSES_PER_STEP * finetune.steps * finetune.batch_size + forwards
    flops = passes * (networks * each + resnets * RESNET_FLOPS * math.prod(crop))
    memory = 4.0 * finetune.batch_size * numbers + 16 * max(inputs.voxels, default=0)
    written = {"none": 0, "all": cells, "first seed": cells // seeds}[finetune.keep_predictions]
    return _cost(task, cells, inputs, flops, memory, cells * HEAD_S, written)


def robustness_cost(
    task: TaskConfig,
    conditions: int,
    probe: Probe,
    finetune: Finetune,
    evaluate: Evaluate,
    model: ModelConfig,
    crop: Triple,
    inputs: CostInputs,
) -> EvaluationCost:
    """Cost of evaluating a task again at so many conditions."""
    encoders = len(set(inputs.initializations) - set(BASELINES))
    forwards, each = _forward_passes(task, finetune, model, crop, inputs)
    evaluators = encoders * evaluate.seeds if isinstance(task, CropTask) else 0  # probes
    evaluators += (
        encoders * _count_supported_methods(task, finetune) * (finetune.seeds or evaluate.seeds)
    )
    numbers = len(probe.methods) * evaluators * inputs.test_scans
    maps, map_bytes = _label_maps(task, inputs, with_external=False)
    corrupted = (CORRUPTION_BYTES + 4 * CACHED_VOLUMES) * max(inputs.voxels, default=0)
    return EvaluationCost(
        files=RECORD_FILES + 1 + conditions + maps,
        disk_bytes=float(RECORD_BYTES + conditions * (CELL_BYTES + 10 * numbers)) + map_bytes,
        memory_bytes=BASE_BYTES + 16.0 * probe.batch_size * math.prod(crop) + corrupted,
        flops=evaluators * conditions * forwards * each,
        seconds=conditions * CORRUPTION_S * inputs.test_voxels,
    )


def _cost(
    task: TaskConfig,
    cells: int,
    inputs: CostInputs,
    flops: float,
    memory: float,
    seconds: float,
    cells_with_maps: int = 0,
) -> EvaluationCost:
    """`cells_with_maps`: cells whose predicted label maps are kept, in a segmentation."""
    files, size = RECORD_FILES + cells, float(RECORD_BYTES + CELL_BYTES * cells)
    if isinstance(task, CropTask):
        size += cells * _count_crops(task, inputs.test_scans) * _crop_bytes(task)
    else:
        files += cells_with_maps * inputs.test_scans
        size += (
            cells * SCAN_BYTES * inputs.test_scans
            + cells_with_maps * MAP_BYTES * inputs.raw_test_voxels
        )
    maps, map_bytes = _label_maps(task, inputs, with_external=True)
    return EvaluationCost(files + maps, size + map_bytes, BASE_BYTES + memory, flops, seconds)


def _label_maps(task: TaskConfig, inputs: CostInputs, *, with_external: bool) -> tuple[int, float]:
    """Files and bytes of label maps on the stored grid; trials of an ablation write none."""
    files, size = 0, 0.0
    if getattr(task, "label", None) and inputs.writes_label_maps:
        files, size = files + len(inputs.voxels), size + sum(inputs.voxels)
    if with_external and getattr(task, "external_predictions", None) and inputs.writes_label_maps:
        files, size = files + inputs.test_scans, size + inputs.test_voxels
    return files, size


def _forward_passes(
    task: TaskConfig, finetune: Finetune, model: ModelConfig, crop: Triple, inputs: CostInputs
) -> tuple[float, float]:
    """Number of forward passes over crops that score a task, and the FLOPs of each."""
    each = float(model.forward_flops(model.token_count(crop), crop))
    if isinstance(task, CropTask):
        return float(_count_crops(task, inputs.test_scans)), each
    windows = inputs.test_voxels / math.prod(crop) / (1 - finetune.overlap) ** 3
    return windows, each + finetune.decoder.FLOPS * math.prod(crop)


def _count_supported_methods(task: TaskConfig, finetune: Finetune) -> int:
    """Number of adaptation methods that support a task."""
    return sum(m.SUPPORTS_SEGMENTATION or isinstance(task, CropTask) for m in finetune.methods)


def _crop_bytes(task: TaskConfig) -> int:
    return CROP_BYTES + CLASS_BYTES * len(task.classes)


def _count_crops(task: TaskConfig, scans: int) -> int:
    """Crops of so many scans, each of which shows every class."""
    each = len(task.classes) * task.crops_per_class if isinstance(task, CropClassification) else 1
    return scans * each
