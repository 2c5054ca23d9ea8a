"""Compare encoders of several lengths of pretraining: what more of it has bought.

The shorter runs are trials, which `snakemake scaling` starts; the study's own encoder is the last
point of the curve. This stage only reads their evaluations.
"""

from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.evaluation.records import RESULTS_FILE, ScalingArm, ScalingResults
from ssl_pipeline.io.atomic import write_text
from ssl_pipeline.io.records import write_record
from ssl_pipeline.report.sections.scaling import render_scaling
from stages.core.layout import SCALING_TABLE
from stages.core.resources import DatasetSize, Hardware, ResourceEstimate
from stages.core.stage import StageResult
from stages.core.stage_runs import runs_of_trial
from stages.core.study import Study
from stages.core.trials import trial_of
from stages.trial_results import (
    comparison_resources,
    comparison_tables,
    pretraining_diagnoses,
    pretraining_seconds,
    pretraining_steps,
    run_hashes,
)

TITLE = "Compare lengths of pretraining: what more of it has bought"
CONFIG_KEYS = ("name", "seed", "tasks", "scaling", "training", "evaluate.confidence")
DEPENDS_ON = ("pretrain", "probe", "finetune")
VERSION = 1
OUTPUTS = (RESULTS_FILE, SCALING_TABLE)
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False


def is_needed(study: Study) -> bool:
    """Whether the study compares lengths of pretraining."""
    return study.scaling is not None


def inputs(study: Study) -> dict[str, str]:
    """Hashes of all runs. Raises UserError where one is not done, or nothing is compared."""
    if study.scaling is None:
        raise UserError(
            "The study compares no lengths of pretraining: give it a section `scaling`, "
            "`scaling: {}` for a sixteenth, a quarter and the whole."
        )
    compared = (trial for own in _trials_by_length(study).values() for trial in own)
    return run_hashes((run for trial in compared for run in runs_of_trial(trial)), "scaling")


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Tables that are read, and resampled for intervals."""
    return comparison_resources(len(OUTPUTS))


def run(study: Study, out: Path) -> StageResult:
    """Write the comparison as JSON, and as tables to read."""
    assert study.scaling
    by_length = _trials_by_length(study)
    results = ScalingResults(
        study=study.name,
        arms=tuple(
            _arm_record(name, share, by_length[name]) for name, share in study.scaling.arms.items()
        ),
        tables=comparison_tables(study, by_length),
    )
    write_record(out / RESULTS_FILE, results)
    write_text(out / SCALING_TABLE, render_scaling(results))
    files = [out / RESULTS_FILE, out / SCALING_TABLE]
    return StageResult(files, f"the table is {out / SCALING_TABLE}")


def _trials_by_length(study: Study) -> dict[str, list[Study]]:
    """The studies of every length, one a seed, the study itself among them; and random weights.

    The study's own evaluation has random weights of the first seed.
    """
    assert study.scaling
    seeds, (*parts, whole) = range(study.scaling.seeds), study.scaling.arms
    found = {arm: [trial_of(study, f"{arm}-{seed}") for seed in seeds] for arm in parts}
    for arm, first in ((whole, [study]), (RANDOM, [])):
        found[arm] = [*first, *(trial_of(study, f"{arm}-{seed}") for seed in seeds[1:])]
    return found


def _arm_record(name: str, share: float, trials: list[Study]) -> ScalingArm:
    steps = pretraining_steps(trials[0])
    return ScalingArm(
        name=name,
        share=share,
        steps=steps,
        samples=steps * trials[0].training.batch_size,
        seconds=pretraining_seconds(trials),
        diagnoses=pretraining_diagnoses(trials),
    )
