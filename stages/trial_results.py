"""What trials have left: the records of their runs, and the tables that compare their arms."""

from collections.abc import Iterable, Mapping, Sequence

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.ablation import ablation_table
from ssl_pipeline.evaluation.records import AblationTable
from ssl_pipeline.formatting import format_count
from ssl_pipeline.provenance import PROVENANCE_FILE, read_provenance
from ssl_pipeline.training.run_record import read_run_record
from stages.core.records import manifest_hash
from stages.core.resources import RECORD_FILE_COUNT, ResourceEstimate, assumed, counted
from stages.core.stage_runs import StageRun
from stages.core.study import Study

Arms = Mapping[str, Sequence[Study]]  # the trials of every arm, one a seed


def run_hashes(runs: Iterable[StageRun], target: str) -> dict[str, str]:
    """The hash of each run, by its name. Raises UserError where some are not done.

    `target` is Snakemake's, which does them.
    """
    listed = list(runs)
    missing = [run.name for run in listed if not run.is_done]
    if missing:
        raise UserError(
            f"Of {format_count(len(listed), 'run')} of the trials {len(missing)} are not done, "
            f"such as {missing[0]}: `snakemake --profile local {target} --config study=STUDY` does "
            "them."
        )
    return {run.name: manifest_hash(run.study, run.stage, **run.wildcards) for run in listed}


def comparison_tables(study: Study, arms: Arms) -> tuple[AblationTable, ...]:
    """A table of all arms, for each task and each stage that evaluates it."""
    return tuple(
        ablation_table(
            task,
            stage,
            {
                arm: [trial.stage_folder(stage, {"task": task}) for trial in trials]
                for arm, trials in arms.items()
            },
            score=config.score,
            confidence=study.evaluate.confidence,
        )
        for task, config in study.tasks.items()
        for stage in config.evaluation_stages
    )


def comparison_resources(outputs: int) -> ResourceEstimate:
    """What it takes to compare trials: tables that are read, and resampled for intervals."""
    return ResourceEstimate(
        disk=assumed(1e6, "a table of all trials"),
        files=counted(RECORD_FILE_COUNT + outputs, "two tables"),
        memory=assumed(1e9, "predictions of all trials of a task"),
        seconds=assumed(60.0, "a minute of statistics"),
    )


def pretraining_seconds(trials: Sequence[Study]) -> tuple[float, ...]:
    """What the pretraining of each took."""
    folders = (trial.stage_folder("pretrain", {}) for trial in trials)
    return tuple(read_provenance(folder / PROVENANCE_FILE).wall_s for folder in folders)


def pretraining_steps(trial: Study) -> int:
    """The steps of its pretraining, which may have been given hours."""
    record = read_run_record(trial.stage_folder("pretrain", {}))
    return record.steps if record else trial.training.steps


def pretraining_diagnoses(trials: Sequence[Study]) -> tuple[str, ...]:
    """The diagnosis of the pretraining of each, as far as there are any."""
    records = (read_run_record(trial.stage_folder("pretrain", {})) for trial in trials)
    return tuple(record.diagnosis for record in records if record)
