"""Fine-tune the encoder on one task, beside random weights and raw voxels; leave its model."""

from pathlib import Path

from ssl_pipeline.evaluation.cells import UNSHARDED
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.runner.precision import (
    PRECISION_FILE,
    PRECISION_LOCK,
    with_recorded_precision,
)
from stages import evaluation_inputs, task_model
from stages.core.stage import StageResult
from stages.core.study import Study

TITLE = "Fine-tune the encoder on a task, and evaluate it"
CONFIG_KEYS = (
    *("seed", "tasks.{task}", "evaluate", "finetune", "model", "views.crop_voxels"),
    "probe",  # by which its baseline of pixels is scored
)
DEPENDS_ON = ("preprocess", "pretrain")
VERSION = 10
OUTPUTS = (
    *(PRECISION_FILE, PRECISION_LOCK),
    *evaluation_inputs.OUTPUTS,
    *task_model.OUTPUTS,
)
WILDCARDS = ("task",)
USES_GPU, USES_WORKERS, DISTRIBUTED = True, False, False
SHARDED, PER_TRIAL = True, True


def is_needed(study: Study, task: str) -> bool:
    """Whether the task is evaluated by fine-tuning."""
    return "finetune" in study.tasks[task].evaluation_stages


_STAGE = evaluation_inputs.CellStage(
    "finetune", Study.finetune_of, run_finetune, task_model.finetune_cost_with_model
)
inputs = evaluation_inputs.inputs
estimate_resources, run_shard = _STAGE.estimate_resources, _STAGE.run_shard


def run(study: Study, out: Path, task: str) -> StageResult:
    """Compute the missing cells, the table of all, and the model."""
    context = _STAGE.run_cells(study, out, UNSHARDED, task)
    result = evaluation_inputs.stage_result(out)
    finetune = with_recorded_precision(study.finetune_of(task), out)
    result.provenance["precision"] = finetune.precision
    return task_model.with_task_model(study, task, finetune, context, result)
