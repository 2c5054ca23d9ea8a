"""Runs of a study's stages: each stage, once for each task, and those of its trials."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from stages.core.runner import COMPLETION_RECORD, STAGES
from stages.core.study import TRIAL_STAGES, Study
from stages.core.trials import trials

ABLATION_STAGES = ("flop_budget", "ablate")


@dataclass(frozen=True)
class StageRun:
    """One run of a stage."""

    study: Study  # or the trial of it
    stage: str
    wildcards: dict[str, str]

    @property
    def name(self) -> str:
        """The name of its log and jobs."""
        return self.study.run_name(self.stage, self.wildcards)

    @property
    def out(self) -> Path:
        """The folder that it writes to."""
        return self.study.stage_folder(self.stage, self.wildcards)

    @property
    def is_done(self) -> bool:
        """Whether it has been completed, for whatever inputs."""
        return (self.out / COMPLETION_RECORD).exists()


def stage_runs(study: Study) -> dict[str, StageRun]:
    """All runs of a study by name, in the order in which they run."""
    found = []
    for stage in STAGES:
        absent = stage == "download" and not study.download.packages
        absent |= stage in ABLATION_STAGES and study.ablate is None
        if stage == "ablate":
            found += [part for trial in trials(study) for part in runs_of_trial(trial)]
        if not absent:
            found += _runs_of_stage(study, stage)
    return {part.name: part for part in found}


def runs_of_trial(trial: Study) -> list[StageRun]:
    """The runs of a trial: its pretraining, where it has one, and its evaluations."""
    return [part for stage in TRIAL_STAGES for part in _runs_of_stage(trial, stage)]


def _runs_of_stage(study: Study, stage: str) -> Iterator[StageRun]:
    if stage == "pretrain" and not study.has_pretraining:
        return
    for tasks in product(study.tasks, repeat=len(STAGES[stage])):
        if all(stage in study.evaluation_stages(task) for task in tasks):
            yield StageRun(study, stage, dict(zip(STAGES[stage], tasks, strict=True)))
