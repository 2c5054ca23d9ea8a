"""A request to run a stage: its name and words as they were typed, before the study is read.

A request is small and picklable, so the command line hands it to the runner of this machine, and a
launcher to the node that a job runs on.
"""

from dataclasses import dataclass
from pathlib import Path

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.cells import UNSHARDED, CellShard
from stages.core.stage import load_stage
from stages.core.stage_runs import StageRun
from stages.core.study_file import load_study
from stages.core.trials import trial_of


@dataclass(frozen=True)
class StageRequest:
    """A stage of a study or of one of its trials, and the shard of its cells, if not all."""

    stage: str
    study_file: Path
    wildcards: dict[str, str]
    trial: str = ""
    shard: CellShard = UNSHARDED

    def load(self) -> StageRun:
        """The run of the stage in the study. Raises UserError where the study has none such."""
        study = load_study(self.study_file)
        if self.trial:
            study = trial_of(study, self.trial)
            if self.stage == "pretrain" and not study.has_pretraining:
                raise UserError(f"{self.trial} trains nothing: it evaluates random weights.")
        task = self.wildcards.get("task")
        if task is not None and task not in study.tasks:
            raise UserError(f"The study has no task {task}: {suggest_name(task, study.tasks)}")
        return StageRun(study, self.stage, self.wildcards)


def parse_request(stage: str, study_file: Path, words: tuple[str, ...]) -> StageRequest:
    """A request from words such as `task=organ trial=hybrid-0 shard=2/8`. Raises UserError."""
    required = stage_wildcards(stage)
    taken = (*required, *optional_keys(stage))
    values: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in taken or not value:
            raise UserError(f"{stage} does not take {word}: {stage_usage(stage)}.")
        values[key] = value
    if not values.keys() >= set(required):
        raise UserError(f"{stage} needs to know which one: {stage_usage(stage)}.")
    return StageRequest(
        stage,
        study_file,
        {key: values[key] for key in required},
        values.get("trial", ""),
        _parse_shard(values["shard"]) if "shard" in values else UNSHARDED,
    )


def stage_wildcards(stage: str) -> tuple[str, ...]:
    """The keys that a stage needs: one for each part of its folder's path."""
    return load_stage(stage).WILDCARDS


def optional_keys(stage: str) -> tuple[str, ...]:
    """The keys that a stage may be given: a trial, a shard of its cells."""
    trial = ("trial",) if load_stage(stage).PER_TRIAL else ()
    return (*trial, "shard") if load_stage(stage).SHARDED else trial


def stage_usage(stage: str) -> str:
    """The words that a stage takes."""
    required, optional = stage_wildcards(stage), optional_keys(stage)
    words = ", ".join(f"{key}=NAME" for key in required) or "it takes no further words"
    trial = "trial=NAME too for one trial of ablate or scaling" if "trial" in optional else ""
    shard = "shard=2/8 for the second of eight parts" if "shard" in optional else ""
    return "; ".join(text for text in (words, trial, shard) if text)


def _parse_shard(text: str) -> CellShard:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 0 < int(number) <= int(count)):
        raise UserError(f"shard={text} is no shard: write shard=2/8 for the second of eight.")
    return CellShard(int(number), int(count))
