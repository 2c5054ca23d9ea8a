"""Cost model of evaluating a task: files, disk, memory, FLOPs and seconds.

All of it is counted from the task, the sections and the sizes of the stored volumes; nothing is
opened, and torch is not imported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_pipeline.evaluation.cells import (
    BASELINES,
    EXTERNAL,
    PIXELS,
    RANDOM,
    RESNET,
)
from ssl_pipeline.evaluation.config import Evaluate, Finetune, Probe
from ssl_pipeline.evaluation.prediction.calibration import MIN_SUBJECTS
from ssl_pipeline.evaluation.runner.subject_splits import resolve_budgets
from ssl_pipeline.evaluation.tasks.cost import CostInputs, TaskCost
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.formatting import format_count
from ssl_pipeline.models import ModelConfig
from ssl_pipeline.objectives.cost import FORWARD_PASSES_PER_STEP
from ssl_pipeline.types import Triple

BASE_BYTES = 690e6  # a process that has imported torch and scikit-learn
CELL_BYTES = 350  # a cell but for its predictions, in its file and in the tables
# Record, manifest, provenance, results, costs, test accesses, lock.
RECORD_FILES, RECORD_BYTES = 8, 5_700
PRECISION_FILES = 2  # what fine-tuning measures once, and its lock
RESNET_FLOPS = 5_000  # of the small ResNet and a voxel, forward; it has 3,700
HEAD_S = 0.2  # fitting a simple classifier
CORRUPTION_S, CORRUPTION_BYTES = 2e-7, 24  # corrupting a voxel
CACHED_VOLUMES = 8  # corrupted ones; evaluators read scan by scan


@dataclass(frozen=True)
class EvaluatedTask:
    """A task, the settings that it is evaluated with, and the sizes of its scans."""

    task: Task
    probe: Probe
    finetune: Finetune
    evaluate: Evaluate
    model: ModelConfig
    crop: Triple  # (z, y, x), voxels
    inputs: CostInputs

    @property
    def task_cost(self) -> TaskCost:
        """Cost of one cell, beside that of the encoder."""
        return self.task.cost(self.inputs, self.finetune, self.crop)

    @property
    def encoder_flops(self) -> float:
        """FLOPs of a forward pass of the encoder over a crop."""
        return float(self.model.forward_flops(self.model.token_count(self.crop), self.crop))

    @property
    def n_encoders(self) -> int:
        """Number of initializations that have an encoder."""
        return len(set(self.inputs.initializations) - set(BASELINES))

    @property
    def n_methods(self) -> int:
        """Number of adaptation methods that serve the task."""
        return len(self.task.supported_methods(self.finetune))

    @property
    def has_model(self) -> bool:
        """Whether its fine-tuning leaves a model."""
        return self.task.leaves_model(self.finetune, self.inputs.initializations)

    @property
    def network_bytes(self) -> float:
        """Bytes of a saved network, by its encoder, which most of them are of."""
        return 4.0 * self.model.parameter_count

    @property
    def labelled_subjects(self) -> int:
        """The most labelled subjects that fine-tuning learns from."""
        available = self.inputs.train_subjects
        *_, most = resolve_budgets(self.finetune.subjects or self.evaluate.subjects, available)
        return most or available

    @property
    def finetune_seeds(self) -> int:
        """Seeds of fine-tuning."""
        return self.finetune.seeds or self.evaluate.seeds


@dataclass(frozen=True)
class EvaluationCost:
    """Cost of one evaluation stage on one task."""

    files: int
    disk_bytes: float
    memory_bytes: float
    flops: float
    seconds: float  # of work that FLOPs do not measure
    work: str = ""  # what the FLOPs are spent on, in words, where settings leave it open


def probe_cost(of: EvaluatedTask) -> EvaluationCost:
    """Cost of probing a task with every method, initialization, seed and budget."""
    inputs, seeds = of.inputs, of.evaluate.seeds
    budgets = resolve_budgets(of.task.probe_budgets(of.evaluate), inputs.train_subjects)
    fits = (len(inputs.initializations) + inputs.scan_features) * seeds * len(budgets)
    encoders = sum(seeds if s == RANDOM else s not in BASELINES for s in inputs.initializations)
    files, disk_bytes = _cell_files(of, fits * len(of.probe.methods))
    return EvaluationCost(
        files=files,
        disk_bytes=disk_bytes,
        memory_bytes=BASE_BYTES + 16.0 * of.probe.batch_size * math.prod(of.crop),
        flops=encoders * of.task_cost.probed_crops * of.encoder_flops,
        seconds=fits * sum(method.FIT_SECONDS for method in of.probe.methods),
    )


def finetune_cost(of: EvaluatedTask) -> EvaluationCost:
    """Cost of fine-tuning on a task from every initialization, seed and budget."""
    inputs, finetune, cost = of.inputs, of.finetune, of.task_cost
    budgets = resolve_budgets(finetune.subjects or of.evaluate.subjects, inputs.train_subjects)
    draws = of.finetune_seeds * len(budgets)
    networks = of.n_methods * of.n_encoders * draws
    baselines = of.task.finetune_baselines(finetune) if PIXELS in inputs.initializations else ()
    plain = draws * (PIXELS in inputs.initializations)  # has no network
    resnets, external = draws * (RESNET in baselines), int(EXTERNAL in baselines)
    cells = networks + plain + resnets + external
    kept = {"none": 0, "all": cells, "first seed": cells // of.finetune_seeds}
    files, disk_bytes = _cell_files(of, cells, with_maps=kept[finetune.keep_predictions])
    kept_networks = _kept_networks(of)
    sections = [
        of.task.finetune_section(finetune, budget or inputs.train_subjects) for budget in budgets
    ]
    chosen_by = inputs.calibration_voxels if finetune.largest_component == "auto" else 0
    predictions = cost.forward_passes * (1 + chosen_by / max(1, inputs.test_voxels))
    passes = sum(
        FORWARD_PASSES_PER_STEP * each.steps * each.batch_size + predictions for each in sections
    ) / len(budgets)
    network_flops = networks * (of.encoder_flops + cost.head_flops)
    memory = training_bytes(of.task, sections[-1], of.model, of.crop)
    precision_files = PRECISION_FILES if finetune.precision == "auto" else 0
    return EvaluationCost(
        files=files + kept_networks + precision_files,
        disk_bytes=disk_bytes + kept_networks * of.network_bytes,
        memory_bytes=BASE_BYTES + memory + 16 * max(inputs.voxels, default=0) + cost.scoring_bytes,
        flops=passes * (network_flops + resnets * RESNET_FLOPS * math.prod(of.crop)),
        seconds=cells * HEAD_S,
        work=f"{format_count(networks, 'network')} of {_training_words(sections)}",
    )


def _training_words(sections: Sequence[Finetune]) -> str:
    """The steps and batch of trainings, which by default follow from task and labels."""
    steps = sorted({section.steps for section in sections})
    ends = f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else f"{steps[0]}"
    return f"{ends} steps of {format_count(sections[0].batch_size, 'crop')}"


def calibration_flops(of: EvaluatedTask) -> float:
    """FLOPs of a model's predictions for the subjects who calibrate it, and the scored ones."""
    inputs, cost = of.inputs, of.task_cost
    if inputs.calibration_subjects < MIN_SUBJECTS:
        return 0.0
    passes = cost.forward_passes * (1 + inputs.calibration_voxels / max(1, inputs.test_voxels))
    return passes * (of.encoder_flops + cost.head_flops)


def training_bytes(task: Task, section: Finetune, model: ModelConfig, crop: Triple) -> float:
    """Bytes of the activations that a training step stores; the section has the task's batch."""
    activations = model.activation_count(model.token_count(crop), crop)
    return 4.0 * section.batch_size * (activations + task.head_activations(section, crop))


def robustness_cost(of: EvaluatedTask, conditions: int) -> EvaluationCost:
    """Cost of evaluating a task again at so many conditions."""
    inputs, cost = of.inputs, of.task_cost
    probe_seeds = of.evaluate.seeds * ("probe" in of.task.SUPPORTED_STAGES)
    evaluators = of.n_encoders * (probe_seeds + of.n_methods * of.finetune_seeds)
    numbers = len(of.probe.methods) * evaluators * inputs.test_scans
    maps, map_bytes = _label_maps(of)
    corrupted = (CORRUPTION_BYTES + 4 * CACHED_VOLUMES) * max(inputs.voxels, default=0)
    return EvaluationCost(
        files=RECORD_FILES + 1 + conditions + maps,
        disk_bytes=float(RECORD_BYTES + conditions * (CELL_BYTES + 10 * numbers)) + map_bytes,
        memory_bytes=BASE_BYTES
        + 16.0 * of.probe.batch_size * math.prod(of.crop)
        + corrupted
        + cost.scoring_bytes,
        flops=evaluators * conditions * cost.forward_passes * (of.encoder_flops + cost.head_flops),
        seconds=conditions * CORRUPTION_S * inputs.test_voxels,
    )


def _cell_files(of: EvaluatedTask, cells: int, with_maps: int = 0) -> tuple[int, float]:
    """Files and bytes of cells, `with_maps` of which keep their predicted label maps."""
    cost = of.task_cost
    maps, map_bytes = _label_maps(of)
    size = RECORD_BYTES + cells * (CELL_BYTES + cost.prediction_bytes) + with_maps * cost.map_bytes
    return RECORD_FILES + cells + with_maps * cost.map_files + maps, size + map_bytes


def _kept_networks(of: EvaluatedTask) -> int:
    """Number of networks that fine-tuning keeps."""
    if of.finetune.keep_networks == "all":
        return of.n_methods * of.n_encoders * of.finetune_seeds
    return int(of.has_model)


def _label_maps(of: EvaluatedTask) -> tuple[int, float]:
    """Files and bytes of label maps on the stored grid; trials of an ablation write none."""
    cost = of.task_cost
    return (cost.label_files, cost.label_bytes) if of.inputs.writes_label_maps else (0, 0.0)
