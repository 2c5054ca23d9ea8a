"""Compare the objectives of an ablation at equal FLOPs, in one table of all trials.

The trials are runs of other stages, which `snakemake ablate` starts; this one only reads them.
"""

from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.ablation import ablation_table
from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.evaluation.records import (
    RESULTS_FILE,
    AblationArm,
    AblationResults,
    AblationTable,
)
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.io.records import write_record
from ssl_pipeline.provenance import PROVENANCE_FILE, read_provenance
from ssl_pipeline.report.sections.ablation import render_ablation
from ssl_pipeline.training.run_record import read_run_record
from stages.core.layout import ABLATION_TABLE
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.stage import StageResult
from stages.core.stage_runs import runs_of_trial
from stages.core.study import Study
from stages.core.trials import ArmBudget, read_budget, require_ablation, trial_of, trials

TITLE = "Compare the objectives of an ablation at equal FLOPs"
CONFIG_KEYS = ("name", "seed", "tasks", "ablate", "evaluate.confidence")
DEPENDS_ON = ("flop_budget",)
VERSION = 5
OUTPUTS = (RESULTS_FILE, ABLATION_TABLE)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study) -> bool:
    """Whether the study compares objectives."""
    return study.ablate is not None


def inputs(study: Study) -> dict[str, str]:
    """Hashes of all trials. Raises UserError where one is not done, or there is none."""
    require_ablation(study)
    runs = [run for trial in trials(study) for run in runs_of_trial(trial)]
    missing = [run.name for run in runs if not run.is_done]
    if missing:
        raise UserError(
            f"Of {format_count(len(runs), 'run')} of the trials {len(missing)} are not done, such "
            f"as {missing[0]}: `snakemake --profile local ablate --config study=STUDY` does them."
        )
    hashes = {run.name: manifest_hash(run.study, run.stage, **run.wildcards) for run in runs}
    return {"flop_budget": manifest_hash(study, "flop_budget"), **hashes}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Tables that are read, and resampled for intervals."""
    return ResourceEstimate(
        disk=assumed(1e6, "a table of all trials"),
        files=counted(RECORD_FILE_COUNT + len(OUTPUTS), "two tables"),
        memory=assumed(1e9, "predictions of all trials of a task"),
        seconds=assumed(60.0, "a minute of statistics"),
    )


def run(study: Study, out: Path) -> StageResult:
    """Write the comparison as JSON, and as a table to read."""
    assert study.ablate
    budget = read_budget(study)
    results = AblationResults(
        study=study.name,
        flops=budget.flops,
        arms=tuple(_arm_record(study, name, budget.arms[name]) for name in study.ablate.arms),
        tables=tuple(
            _compare_arms(study, stage, task)
            for task, config in study.tasks.items()
            for stage in config.evaluation_stages
        ),
    )
    write_record(out / RESULTS_FILE, results)
    text = render_ablation(results)
    write_text(out / ABLATION_TABLE, text)
    files = [out / RESULTS_FILE, out / ABLATION_TABLE]
    return StageResult(files, f"the table is {out / ABLATION_TABLE}")


def _compare_arms(study: Study, stage: str, task: str) -> AblationTable:
    assert study.ablate
    folders = {
        arm: [
            trial_of(study, f"{arm}-{seed}").stage_folder(stage, {"task": task})
            for seed in range(study.ablate.seeds)
        ]
        for arm in (*study.ablate.arms, RANDOM)
    }
    return ablation_table(
        task,
        stage,
        folders,
        score=study.tasks[task].score,
        confidence=study.evaluate.confidence,
        seed=study.seed,
    )


def _arm_record(study: Study, name: str, budget: ArmBudget) -> AblationArm:
    """Cost and diagnoses of the runs of an arm."""
    assert study.ablate
    runs = [trial_of(study, f"{name}-{seed}") for seed in range(study.ablate.seeds)]
    folders = [run.stage_folder("pretrain", {}) for run in runs]
    return AblationArm(
        name=name,
        **budget.model_dump(),
        seconds=tuple(read_provenance(folder / PROVENANCE_FILE).wall_s for folder in folders),
        diagnoses=tuple(run.diagnosis for run in map(read_run_record, folders) if run),
    )
