"""Evaluate probes and fine-tuned networks of a task on corrupted scans."""

from pathlib import Path

from ssl_pipeline.evaluation.cost_model import robustness_cost
from ssl_pipeline.evaluation.records import RESULTS_FILE
from ssl_pipeline.evaluation.robustness.evaluators import RobustnessInputs
from ssl_pipeline.evaluation.robustness.robustness import run_robustness
from ssl_pipeline.evaluation.runner.access_log import ACCESS_LOG
from ssl_pipeline.formatting import format_count
from stages import evaluation_inputs
from stages.core.layout import LABEL_MAPS_FOLDER
from stages.core.records import manifest_hash
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate
from stages.core.stage import StageResult
from stages.core.study import Study

TITLE = "Evaluate probes and fine-tuned networks of a task on corrupted scans"
CONFIG_KEYS = (
    "seed",
    "tasks.{task}",
    "evaluate",
    "probe",
    "finetune",
    "robustness",
    "model",
    "views.crop_voxels",
    "preprocess",
)
DEPENDS_ON = ("preprocess", "pretrain")
VERSION = 4
OUTPUTS = (RESULTS_FILE, ACCESS_LOG, "conditions/*.json", f"{LABEL_MAPS_FOLDER}/*.npy")
WILDCARDS = ("task",)
USES_GPU, USES_WORKERS, DISTRIBUTED = True, False, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study, task: str) -> bool:
    """Whether the task's fine-tuned networks are evaluated on corrupted scans."""
    return study.evaluates_robustness(task)


def inputs(study: Study, task: str) -> dict[str, str]:
    """Inputs of all evaluations, and the fine-tuned networks."""
    return {
        **evaluation_inputs.inputs(study, task),
        f"finetune {task}": manifest_hash(study, "finetune", task=task),
    }


def estimate_resources(
    study: Study, dataset: DatasetSize, hardware: Hardware, task: str
) -> ResourceEstimate:
    """Every corruption at every severity."""
    config = study.tasks[task]
    assert study.robustness
    modalities = [s.modality for s in dataset.scans if not config.roots or s.root in config.roots]
    conditions = len(study.robustness.conditions(set(modalities)))
    of = evaluation_inputs.evaluated_task(dataset, study, task)
    cost = robustness_cost(of, conditions)
    return evaluation_inputs.resource_estimate(cost, dataset, hardware.gpus > 0)


def run(study: Study, out: Path, task: str) -> StageResult:
    """Compute the missing conditions, and the table of all."""
    assert study.robustness
    robustness_inputs = RobustnessInputs(
        robustness=study.robustness,
        probe=study.probe_of(task),
        finetune=study.finetune_of(task),
        preprocess=study.preprocess,
        networks=study.stage_folder("finetune", {"task": task}),
    )
    context = evaluation_inputs.evaluation_context(study, "robustness", out, task)
    results = run_robustness(study.tasks[task], robustness_inputs, context)
    rows = format_count(len(results.rows), "row")
    summary = f"{results.task}: {rows} on corrupted scans"
    accesses = {"test_access": evaluation_inputs.access_records(out)}
    return StageResult([out / RESULTS_FILE], summary, accesses)
