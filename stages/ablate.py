"""Compare the objectives of an ablation at equal FLOPs, in one table of all trials.

The trials are runs of other stages, which `snakemake ablate` starts; this one only reads them.
"""

from pathlib import Path
from typing import Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.ablation import ablation_table
from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import read_json, write_json, write_text
from ssl_pipeline.provenance import PROVENANCE_FILE
from ssl_pipeline.report.sections.ablation import render_ablation
from stages.core.layout import ABLATION_FILE, ABLATION_TABLE, budget_table
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
from stages.core.trials import require_ablation, trial_of, trials

TITLE = "Compare the objectives of an ablation at equal FLOPs"
CONFIG_KEYS = ("name", "seed", "tasks", "ablate", "evaluate.confidence")
DEPENDS_ON = ("flop_budget",)
VERSION = 4
OUTPUTS = (ABLATION_FILE, ABLATION_TABLE)
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
    budget = read_json(budget_table(study))
    tables = [
        {"name": task, "stage": stage, **_compare_arms(study, stage, task)}
        for task, config in study.tasks.items()
        for stage in config.evaluation_stages
    ]
    results = {
        "study": study.name,
        "flops": budget["flops"],
        "arms": [_arm_record(study, name, budget["arms"][name]) for name in study.ablate.arms],
        "tables": tables,
    }
    write_json(out / ABLATION_FILE, results)
    text = render_ablation(results)
    write_text(out / ABLATION_TABLE, text)
    files = [out / ABLATION_FILE, out / ABLATION_TABLE]
    return StageResult(files, f"the table is {out / ABLATION_TABLE}")


def _compare_arms(study: Study, stage: str, task: str) -> dict[str, Any]:
    assert study.ablate
    folders = {
        arm: [
            trial_of(study, f"{arm}-{seed}").stage_folder(stage, {"task": task})
            for seed in range(study.ablate.seeds)
        ]
        for arm in (*study.ablate.arms, RANDOM)
    }
    score = study.tasks[task].score
    confidence = study.evaluate.confidence
    return ablation_table(folders, score=score, confidence=confidence, seed=study.seed)


def _arm_record(study: Study, name: str, budget: dict[str, int]) -> dict[str, Any]:
    """Cost and diagnoses of the runs of an arm."""
    assert study.ablate
    runs = [trial_of(study, f"{name}-{seed}") for seed in range(study.ablate.seeds)]
    folders = [run.stage_folder("pretrain", {}) for run in runs]
    records = [read_json(folder / PROVENANCE_FILE) for folder in folders]
    return {
        "name": name,
        **budget,
        "seconds": [record["wall_s"] for record in records],
        "diagnoses": [record["training_summary"]["diagnosis"] for record in records],
    }
