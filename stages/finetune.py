"""Fine-tune the encoder on one task, beside random weights and raw voxels."""

from dataclasses import replace
from pathlib import Path

from ssl_pipeline.evaluation.cells import CellShard
from ssl_pipeline.evaluation.cost_model import finetune_cost
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from stages import evaluation_inputs
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate
from stages.core.runner import StageResult
from stages.core.study import Study

CONFIG_KEYS = ("seed", "tasks.{task}", "evaluate", "finetune", "model", "views.crop_voxels")
DEPENDS_ON = ("preprocess", "pretrain")
VERSION = 5
OUTPUTS = evaluation_inputs.OUTPUTS


def inputs(study: Study, task: str) -> dict[str, str]:
    """Stored volumes, encoder, labels."""
    return evaluation_inputs.inputs(study, task)


def estimate_resources(
    study: Study, dataset: DatasetSize, hardware: Hardware, task: str
) -> ResourceEstimate:
    """Every cell of the task."""
    config, of = study.tasks[task], evaluation_inputs.cost_inputs(dataset, study, task)
    crop = config.crop_size(study.views.crop_voxels)
    cost = finetune_cost(config, study.finetune_of(task), study.evaluate, study.model, crop, of)
    return evaluation_inputs.resource_estimate(cost, dataset, hardware.gpus > 0)


def run(study: Study, out: Path, task: str) -> StageResult:
    """Compute the missing cells, and the table of all."""
    context = evaluation_inputs.evaluation_context(study, "finetune", out, task)
    run_finetune(study.tasks[task], study.finetune_of(task), context)
    return evaluation_inputs.stage_result(out)


def run_shard(study: Study, out: Path, shard: CellShard, task: str) -> None:
    """Compute a shard of the missing cells."""
    context = evaluation_inputs.evaluation_context(study, "finetune", out, task)
    run_finetune(study.tasks[task], study.finetune_of(task), replace(context, shard=shard))
