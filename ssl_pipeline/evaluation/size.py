"""What judging a task takes: its cells, what they leave behind, and how long they compute.

All of it is counted from the task, the sections and the sizes of the stored volumes; nothing is
opened, and torch is not imported.
"""

import math
from dataclasses import dataclass

from ssl_pipeline.evaluation.cells import BASELINES, PIXELS, RANDOM
from ssl_pipeline.evaluation.cohort import budgets
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.tasks import RegionTask, TaskConfig
from ssl_pipeline.evaluation.tasks.crop_classification import CropClassification
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.size import PASSES
from ssl_pipeline.views.config import Triple

BASE_BYTES = 690e6  # a process that has imported torch and scikit-learn
REGION_BYTES, CLASS_BYTES = 130, 18  # a prediction in a cell's file, and each class's share of it
SCAN_BYTES = 300  # a segmented scan in a cell's file
CELL_BYTES = 350  # what else is there of a cell, in its file and in the tables
MAP_BYTES = 0.012  # a voxel of a packed map of classes
RECORD_FILES, RECORD_BYTES = 7, 5_500  # record, manifest, provenance, results, costs, looks, lock
VOXEL_NUMBERS = 60  # a segmentation head keeps so many of a voxel
RESNET_FLOPS = 5_000  # of the small ResNet and a voxel, forward; it has 3,700
HEAD_S = 0.2  # fitting a simple classifier
WORSE_S, WORSENED_BYTES = 2e-7, 24  # making a voxel worse
KEPT_VOLUMES = 8  # worse ones; judgements ask scan by scan


@dataclass(frozen=True)
class Judged:
    """What is judged, and the task's scans by their numbers alone."""

    starts: tuple[str, ...]
    keeps_labels: bool  # on the stored grid; trials of an ablation share those of the study
    train_subjects: int
    train_scans: int
    test_scans: int
    voxels: tuple[float, ...]  # of all of them, stored
    test_voxels: float  # of those that are scored, stored
    raw_test_voxels: int  # of the same, in their own grids


@dataclass(frozen=True)
class Cost:
    """What a judgement takes."""

    files: int
    bytes: float
    memory_bytes: float
    flops: float
    seconds: float  # of what is no product of matrices


def probing(
    task: TaskConfig, probe: Probe, evaluate: Evaluate, model: ModelConfig, crop: Triple, of: Judged
) -> Cost:
    """Probe a task with every method, start, seed and budget."""
    fits = len(of.starts) * evaluate.seeds * len(budgets(evaluate.subjects, of.train_subjects))
    seconds = fits * sum(method.SECONDS for method in probe.methods)
    encoders = sum(evaluate.seeds if s == RANDOM else s not in BASELINES for s in of.starts)
    looks = encoders * _regions(task, of.train_scans + of.test_scans)
    flops = float(looks * model.forward_flops(model.tokens(crop), crop))
    memory = 16.0 * probe.batch * math.prod(crop)
    return _cost(task, fits * len(probe.methods), of, flops, memory, seconds)


def finetuning(
    task: TaskConfig,
    finetune: Finetune,
    evaluate: Evaluate,
    model: ModelConfig,
    crop: Triple,
    of: Judged,
) -> Cost:
    """Fine-tune on a task from every start, seed and budget."""
    seeds = finetune.seeds or evaluate.seeds
    shares = budgets(finetune.subjects or evaluate.subjects, of.train_subjects)
    networks = _serving(task, finetune) * len(set(of.starts) - set(BASELINES)) * seeds * len(shares)
    plain = (PIXELS in of.starts) * seeds * len(shares)  # has no network
    resnets = plain if finetune.resnet and isinstance(task, RegionTask) else 0
    given = int(getattr(task, "given", None) is not None and PIXELS in of.starts)
    cells = networks + plain + resnets + given
    looks, each = _looks(task, finetune, model, crop, of)
    numbers = model.kept_numbers(model.tokens(crop), crop)
    if not isinstance(task, RegionTask):
        numbers += VOXEL_NUMBERS * math.prod(crop)
    seen = PASSES * finetune.steps * finetune.batch + looks
    flops = seen * (networks * each + resnets * RESNET_FLOPS * math.prod(crop))
    memory = 4.0 * finetune.batch * numbers + 16 * max(of.voxels, default=0)
    written = {"none": 0, "all": cells, "first seed": cells // seeds}[finetune.predictions]
    return _cost(task, cells, of, flops, memory, cells * HEAD_S, written)


def worsening(
    task: TaskConfig,
    conditions: int,
    probe: Probe,
    finetune: Finetune,
    evaluate: Evaluate,
    model: ModelConfig,
    crop: Triple,
    of: Judged,
) -> Cost:
    """Judge a task again at so many conditions."""
    encoders = len(set(of.starts) - set(BASELINES))
    looks, each = _looks(task, finetune, model, crop, of)
    judges = encoders * evaluate.seeds if isinstance(task, RegionTask) else 0  # probes
    judges += encoders * _serving(task, finetune) * (finetune.seeds or evaluate.seeds)
    numbers = len(probe.methods) * judges * of.test_scans
    maps, map_bytes = _label_maps(task, of, given=False)
    worse = (WORSENED_BYTES + 4 * KEPT_VOLUMES) * max(of.voxels, default=0)
    return Cost(
        files=RECORD_FILES + 1 + conditions + maps,
        bytes=float(RECORD_BYTES + conditions * (CELL_BYTES + 10 * numbers)) + map_bytes,
        memory_bytes=BASE_BYTES + 16.0 * probe.batch * math.prod(crop) + worse,
        flops=judges * conditions * looks * each,
        seconds=conditions * WORSE_S * of.test_voxels,
    )


def _cost(
    task: TaskConfig,
    cells: int,
    of: Judged,
    flops: float,
    memory: float,
    seconds: float,
    written: int = 0,
) -> Cost:
    """`written`: cells whose maps of classes are kept, where the task has such."""
    files, size = RECORD_FILES + cells, float(RECORD_BYTES + CELL_BYTES * cells)
    if isinstance(task, RegionTask):
        size += cells * _regions(task, of.test_scans) * _region_bytes(task)
    else:
        files += written * of.test_scans
        size += cells * SCAN_BYTES * of.test_scans + written * MAP_BYTES * of.raw_test_voxels
    maps, map_bytes = _label_maps(task, of, given=True)
    return Cost(files + maps, size + map_bytes, BASE_BYTES + memory, flops, seconds)


def _label_maps(task: TaskConfig, of: Judged, *, given: bool) -> tuple[int, float]:
    """Files and bytes of labels on the stored grid, of which trials of an ablation write none."""
    files, size = 0, 0.0
    if getattr(task, "label", None) and of.keeps_labels:
        files, size = files + len(of.voxels), size + sum(of.voxels)
    if given and getattr(task, "given", None) and of.keeps_labels:
        files, size = files + of.test_scans, size + of.test_voxels
    return files, size


def _looks(
    task: TaskConfig, finetune: Finetune, model: ModelConfig, crop: Triple, of: Judged
) -> tuple[float, float]:
    """How many crops a network looks at to score a task, and the operations of each."""
    each = float(model.forward_flops(model.tokens(crop), crop))
    if isinstance(task, RegionTask):
        return float(_regions(task, of.test_scans)), each
    looks = of.test_voxels / math.prod(crop) / (1 - finetune.overlap) ** 3
    return looks, each + finetune.decoder.FLOPS * math.prod(crop)


def _serving(task: TaskConfig, finetune: Finetune) -> int:
    """How many ways of adapting serve a task."""
    return sum(m.VOXELS or isinstance(task, RegionTask) for m in finetune.methods)


def _region_bytes(task: TaskConfig) -> int:
    return REGION_BYTES + CLASS_BYTES * len(task.classes)


def _regions(task: TaskConfig, scans: int) -> int:
    """Crops of so many scans, each of which shows every class."""
    each = len(task.classes) * task.crops_per_class if isinstance(task, CropClassification) else 1
    return scans * each
