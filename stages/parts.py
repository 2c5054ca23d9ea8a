"""All that a study consists of: every stage, once for each task, and those of its trials."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from stages.contract import DONE, STAGES
from stages.study import BY_TRIAL, Study
from stages.trials import trials

OF_ABLATION = ("budget", "ablate")


@dataclass(frozen=True)
class Part:
    """One run of a stage."""

    study: Study  # or the trial of it
    stage: str
    wildcards: dict[str, str]

    @property
    def name(self) -> str:
        """As its log and jobs are called."""
        return self.study.called(self.stage, self.wildcards)

    @property
    def out(self) -> Path:
        """Where it writes."""
        return self.study.stage_folder(self.stage, self.wildcards)

    @property
    def done(self) -> bool:
        """Whether it has been completed, for whatever inputs."""
        return (self.out / DONE).exists()


def parts(study: Study) -> dict[str, Part]:
    """By name, in the order in which they run."""
    found = []
    for stage in STAGES:
        absent = stage == "sample" and not study.sample.packages
        absent |= stage in OF_ABLATION and study.ablate is None
        if stage == "ablate":
            found += [part for trial in trials(study) for part in of_trial(trial)]
        if not absent:
            found += _of(study, stage)
    return {part.name: part for part in found}


def of_trial(trial: Study) -> list[Part]:
    """Its pretraining, where it has one, and its judgements."""
    return [part for stage in BY_TRIAL for part in _of(trial, stage)]


def _of(study: Study, stage: str) -> Iterator[Part]:
    if stage == "pretrain" and not study.pretrains:
        return
    for tasks in product(study.tasks, repeat=len(STAGES[stage])):
        if all(stage in study.judged_by(task) for task in tasks):
            yield Part(study, stage, dict(zip(STAGES[stage], tasks, strict=True)))
