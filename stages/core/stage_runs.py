"""Runs of a study's stages: each stage, once for each task, and those of its trials."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from stages.core.layout import COMPLETION_RECORD
from stages.core.stage import load_stage, load_stages
from stages.core.study import Study
from stages.core.trials import trials


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
    found: list[StageRun] = []
    for name in load_stages():
        if name == "ablate":  # which compares trials, as scaling does behind it
            found += [run for trial in trials(study) for run in runs_of_trial(trial)]
        found += runs_of_stage(study, name)
    return {run.name: run for run in found}


def evaluation_runs(study: Study) -> list[StageRun]:
    """The runs that evaluate the study's tasks, those of its trials apart."""
    return [run for run in stage_runs(study).values() if run.study is study and run.wildcards]


def runs_of_trial(trial: Study) -> list[StageRun]:
    """The runs of a trial: its pretraining, where it has one, and its evaluations."""
    return [
        run
        for name, stage in load_stages().items()
        if stage.PER_TRIAL
        for run in runs_of_stage(trial, name)
    ]


def runs_of_stage(study: Study, name: str) -> Iterator[StageRun]:
    """A stage's runs, one for each task where it has that wildcard, as far as they are needed."""
    stage = load_stage(name)
    for tasks in product(study.tasks, repeat=len(stage.WILDCARDS)):
        wildcards = dict(zip(stage.WILDCARDS, tasks, strict=True))
        if stage.is_needed(study, **wildcards):
            yield StageRun(study, name, wildcards)
