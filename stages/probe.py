"""Evaluate the frozen encoder on one task, beside random weights and raw voxels."""

from ssl_pipeline.evaluation.cost_model import probe_cost
from ssl_pipeline.evaluation.runner.probe import run_probe
from stages import evaluation_inputs
from stages.core.study import Study

TITLE = "Evaluate the frozen encoder on a task"
CONFIG_KEYS = ("seed", "tasks.{task}", "evaluate", "probe", "model", "views.crop_voxels")
DEPENDS_ON = ("preprocess", "pretrain")
VERSION = 7
OUTPUTS = evaluation_inputs.OUTPUTS
WILDCARDS = ("task",)
USES_GPU, USES_WORKERS, DISTRIBUTED = True, False, False
SHARDED, PER_TRIAL = True, True


def is_needed(study: Study, task: str) -> bool:
    """Whether the task is evaluated by probes."""
    return "probe" in study.tasks[task].evaluation_stages


def inputs(study: Study, task: str) -> dict[str, str]:
    """Those of every evaluation, and the features that other encoders made."""
    hashes = study.feature_hashes
    own = {key: hashes[key] for key in (f"features {name}" for name in study.features_of(task))}
    return evaluation_inputs.inputs(study, task) | own


_STAGE = evaluation_inputs.CellStage("probe", Study.probe_of, run_probe, probe_cost)
estimate_resources, run, run_shard = _STAGE.estimate_resources, _STAGE.run, _STAGE.run_shard
