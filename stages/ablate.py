"""Compare the objectives of an ablation at equal FLOPs, in one table of all trials.

The trials are runs of other stages, which `snakemake ablate` starts; this one only reads them.
"""

from pathlib import Path

from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.evaluation.records import RESULTS_FILE, AblationArm, AblationResults
from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.io.records import write_record
from ssl_pipeline.report.sections.ablation import render_ablation
from stages.core.layout import ABLATION_TABLE
from stages.core.records import manifest_hash
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate
from stages.core.stage import StageResult
from stages.core.stage_runs import runs_of_trial
from stages.core.study import Study
from stages.core.trials import read_budget, require_ablation, trial_of
from stages.trial_results import (
    comparison_resources,
    comparison_tables,
    pretraining_diagnoses,
    pretraining_seconds,
    run_hashes,
)

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
    trials = (trial for own in _trials_by_arm(study).values() for trial in own)
    hashes = run_hashes((run for trial in trials for run in runs_of_trial(trial)), "ablate")
    return {"flop_budget": manifest_hash(study, "flop_budget"), **hashes}


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Tables that are read, and resampled for intervals."""
    return comparison_resources(len(OUTPUTS))


def run(study: Study, out: Path) -> StageResult:
    """Write the comparison as JSON, and as a table to read."""
    assert study.ablate
    budget, trials_by_arm = read_budget(study), _trials_by_arm(study)
    results = AblationResults(
        study=study.name,
        flops=budget.flops,
        arms=tuple(
            AblationArm(
                name=name,
                **budget.arms[name].model_dump(),
                seconds=pretraining_seconds(trials_by_arm[name]),
                diagnoses=pretraining_diagnoses(trials_by_arm[name]),
            )
            for name in study.ablate.arms
        ),
        tables=comparison_tables(study, trials_by_arm),
    )
    write_record(out / RESULTS_FILE, results)
    text = render_ablation(results)
    write_text(out / ABLATION_TABLE, text)
    files = [out / RESULTS_FILE, out / ABLATION_TABLE]
    return StageResult(files, f"the table is {out / ABLATION_TABLE}")


def _trials_by_arm(study: Study) -> dict[str, list[Study]]:
    """The trials of every arm, one a seed, and those of random weights."""
    assert study.ablate
    seeds = range(study.ablate.seeds)
    return {
        arm: [trial_of(study, f"{arm}-{seed}") for seed in seeds]
        for arm in (*study.ablate.arms, RANDOM)
    }
