"""Trials of an ablation: the study with the objective of an arm and a seed of its own.

A trial shares the study's stored volumes and has its own pretraining and evaluations below
`trials/`. All trials of an ablation cost the same: the FLOPs of the study's own objective in
`training.steps`, as the stage `flop_budget` has counted them. Random weights are a trial without
pretraining.
"""

from typing import Any, Literal

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.io.records import Record, RecordPart, read_record
from stages.core.layout import budget_table
from stages.core.stage import stage_names
from stages.core.study import Study

SEED_STRIDE = 1000  # evaluation seeds count up from a trial's seed, and no two trials share one


def trial_of(study: Study, name: str) -> Study:
    """The study of a trial, such as `hybrid-0`. Raises UserError where the study has none such.

    Its steps are the study's own until the stage `flop_budget` has computed those of its arm.
    """
    require_ablation(study)
    assert study.ablate
    if name not in study.ablate.trials:
        raise UserError(f"The study has no trial {name}: {suggest_name(name, study.ablate.trials)}")
    arm, _, seed = name.rpartition("-")
    changed: dict[str, Any] = {"seed": study.seed + SEED_STRIDE * int(seed)}
    if arm != RANDOM:
        training = study.training.model_copy(update=_arm_steps(study, arm))
        changed |= {"objective": study.ablate.arms[arm], "training": training}
    trial = study.model_copy(update=changed)
    trial._trial, trial._trial_stages = name, frozenset(stage_names(lambda s: s.PER_TRIAL))
    return trial


def planned_trial(study: Study, name: str) -> Study:
    """A trial with the study's own steps, whether its FLOP budget has been counted or not."""
    trial = trial_of(study, name)
    return trial.model_copy(update={"training": study.training})


def trials(study: Study) -> list[Study]:
    """All trials of a study; none where it has no ablation."""
    return [trial_of(study, name) for name in study.ablate.trials] if study.ablate else []


def require_ablation(study: Study) -> None:
    """Raise UserError where the study has no ablation."""
    if study.ablate is None:
        raise UserError(
            "The study compares no objectives: give it a section `ablate`, `ablate: {}` for mae, "
            "contrastive and hybrid."
        )


class ArmBudget(RecordPart):
    """What one objective of an ablation costs, and for how long it is trained."""

    step_flops: int
    steps: int


class FlopBudget(Record):
    """The FLOPs of the study's own pretraining, and the steps that each arm gets for them."""

    format: Literal[1] = 1
    flops: int
    arms: dict[str, ArmBudget]


def read_budget(study: Study) -> FlopBudget:
    """The counted budget. Raises UserError where the file is damaged."""
    remedy = "remove it, and run the stage flop_budget again"
    return read_record(FlopBudget, budget_table(study), remedy)


def _arm_steps(study: Study, arm: str) -> dict[str, int]:
    found = read_budget(study).arms if budget_table(study).exists() else {}
    return {"steps": found[arm].steps} if arm in found else {}
