"""Trials: the study with another objective, recolouring, length of pretraining or seed.

A trial shares the study's stored volumes and has its own pretraining and evaluations below
`trials/`. All trials of an ablation cost the same: the FLOPs of the study's own objective in
`training.steps`, as the stage `flop_budget` has counted them. Those of `scaling` have the study's
objective for a part of its steps. Random weights are a trial without pretraining.
"""

from typing import Any, Literal

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.io.records import Record, RecordPart, read_record
from stages.core.layout import budget_table
from stages.core.stage import stage_names
from stages.core.study import Study

SEED_STRIDE = 1000  # evaluation seeds count up from a trial's seed, and no two trials share one


def trial_of(study: Study, name: str) -> Study:
    """The study of a trial, such as `hybrid-0`. Raises UserError where the study has none such.

    The steps of an ablation's trial are the study's own until the stage `flop_budget` has computed
    those of its arm.
    """
    arm, seed = _arm_and_seed(study, name)
    changed: dict[str, Any] = {"seed": study.seed + SEED_STRIDE * seed}
    if is_ablation_arm(study, arm):
        assert study.ablate
        changed |= {"objective": study.ablate.arms[arm]}
        recolour = study.ablate.recolour.get(arm, study.views.recolour)
        changed |= {"views": study.views.model_copy(update={"recolour": recolour})}
        changed |= {"training": study.training.model_copy(update=_arm_steps(study, arm))}
    elif study.scaling and arm in study.scaling.arms:
        changed |= {"training": study.training.shortened(study.scaling.arms[arm])}
    trial = study.model_copy(update=changed)
    trial._trial, trial._trial_stages = name, frozenset(stage_names(lambda s: s.PER_TRIAL))
    return trial


def planned_trial(study: Study, name: str) -> Study:
    """A trial with the study's own steps, whether its FLOP budget has been counted or not."""
    trial, (arm, _) = trial_of(study, name), _arm_and_seed(study, name)
    counted = {"training": study.training} if is_ablation_arm(study, arm) else {}
    return trial.model_copy(update=counted)


def trials(study: Study) -> list[Study]:
    """All trials of a study; none where it has neither ablation nor scaling."""
    return [trial_of(study, name) for name in _trial_names(study)]


def is_ablation_arm(study: Study, arm: str) -> bool:
    """Whether an arm has an objective of the ablation."""
    return study.ablate is not None and arm in study.ablate.arms


def _trial_names(study: Study) -> list[str]:
    """Every trial once; random weights serve ablation and scaling."""
    sections = (section for section in (study.ablate, study.scaling) if section)
    return list(dict.fromkeys(name for section in sections for name in section.trials))


def _arm_and_seed(study: Study, name: str) -> tuple[str, int]:
    names = _trial_names(study)
    if not names:
        raise UserError(
            "The study has no trials: give it a section `ablate`, which compares objectives, or "
            "`scaling`, which compares lengths of pretraining."
        )
    if name not in names:
        raise UserError(f"The study has no trial {name}: {suggest_name(name, names)}")
    arm, _, seed = name.rpartition("-")
    return arm, int(seed)


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
