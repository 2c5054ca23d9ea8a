"""Trainers of a study: its encoder, objective and sampler, and how many steps its run has.

A run that is given hours becomes one of steps here, in one place and once: before its first step
its pace is measured where it runs, and what follows is recorded in its folder.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import write_record
from ssl_pipeline.progress import info
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.time_budget import (
    MAX_MEASURED_S,
    MEASURED_SHARE,
    TIME_BUDGET_FILE,
    TimeBudget,
    steps_within,
)
from stages import preprocess
from stages.core import layout
from stages.core.objective_validation import check_teacher
from stages.core.pretraining_runs import PretrainingRun, missing_parent_error
from stages.core.study import Study
from stages.replayed_subjects import replay_mix

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.objectives.objective import Objective
    from ssl_pipeline.training.checkpoint import TrainerState
    from ssl_pipeline.training.loop import Trainer
    from ssl_pipeline.views.sampler import ReplayMix, Sampler

NO_CHANGES: Mapping[str, Any] = MappingProxyType({})
InitialState = Callable[[], "TrainerState"]


def random_encoder(study: Study, seed: int) -> "Encoder":
    """The same architecture with random weights: the baseline of every evaluation."""
    from ssl_pipeline.models.encoder import random_encoder as build

    return build(study.model, seed)


def build_objective(encoder: "Encoder", study: Study) -> "Objective":
    """The objective of the study, its heads initialized from the study's seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.seed)
        return study.objective.build(encoder)


def build_sampler(
    study: Study,
    catalog: Catalog,
    entries: list[Entry],
    batch_size: int,
    replay: "ReplayMix | None" = None,
) -> "Sampler":
    """The sampler of `batch_size` samples a step from these volumes."""
    from ssl_pipeline.views.pairing import check_partners
    from ssl_pipeline.views.sampler import Sampler

    check_partners(entries, study.views.partner)
    return Sampler(
        entries,
        preprocess.crop_reader(study, catalog, entries),
        study.views,
        study.model.patch_voxels,
        batch_size=batch_size,
        seed=study.seed,
        metadata_features=study.objective.metadata_features(entries),
        replay=replay,
    )


def build_trainer(
    meant: PretrainingRun, catalog: Catalog, entries: list[Entry], world: RankInfo
) -> tuple["Trainer", dict[str, str]]:
    """The trainer, and what the run starts from, in sentences for its record.

    Raises UserError where the run that it continues from is not there, or its hours are too few.
    """
    from ssl_pipeline.training.loop import RunSettings, Trainer

    study = meant.study
    replay = replay_mix(meant, catalog, entries, partial(_parent_encoder, meant))
    sampler = build_sampler(study, catalog, entries, study.training.batch_size, replay)
    initial_state = partial(_final_state, meant) if meant.parent else None
    training = _training_with_steps(meant, sampler, world, initial_state)
    encoder, started = random_encoder(study, study.seed), {}
    if study.init_from:
        from ssl_pipeline.init_from.transfer import load_pretrained

        found, source = study.init_from.read(), study.init_from.description
        started["init_from"] = load_pretrained(encoder, found, source)
    if meant.parent:
        started["continue_from"] = _continuation_note(training, meant.parent)
    if world.is_first:
        for sentence in started.values():
            info(sentence)
    keys = ("seed", "preprocess", "views", "model", "objective")
    others = {key: study.redacted_config[key] for key in keys}
    run = Trainer(
        meant.folder,
        build_objective(encoder, study),
        sampler,
        RunSettings(training, study.monitoring, others),
        rank_info=world,
        initial_state=initial_state,
    )
    if world.is_first and (before := run.earlier_computes.get(run.step)):
        info(
            f"pretrain: goes on from step {run.step} with {run.compute.threads} threads on "
            f"{run.compute.device}, before {before.threads} on {before.device}: the result is the "
            "same but for rounding."
        )
    return run, started


def build_measured_trainer(
    study: Study,
    sampler: "Sampler",
    folder: Path,
    world: RankInfo,
    initial_state: InitialState | None = None,
    settings: Mapping[str, Any] = NO_CHANGES,
) -> "Trainer":
    """The trainer of a run of the study that is to be measured, without an end.

    `settings` are in place of those of its section `training`.
    """
    from ssl_pipeline.training.loop import RunSettings, Trainer
    from ssl_pipeline.training.pace import unlimited, unobserved

    training = unlimited(study.training).model_copy(update=dict(settings))
    return Trainer(
        folder,
        build_objective(random_encoder(study, study.seed), study),
        sampler,
        RunSettings(training, unobserved(study.monitoring)),
        rank_info=world,
        initial_state=initial_state,
    )


def _training_with_steps(
    meant: PretrainingRun,
    sampler: "Sampler",
    world: RankInfo,
    initial_state: InitialState | None,
) -> Training:
    """The settings of the run with its last step, which is measured where it is given hours."""
    from ssl_pipeline.training.distributed import RankGroup

    training, parent = meant.study.training, meant.parent
    if parent and not parent.steps:
        raise missing_parent_error(meant.study, "has never been started")
    if training.hours:
        ranks = RankGroup(world)
        with ranks.connect("cpu"):  # other machines may not see the first rank's file yet
            steps = int(ranks.maximum(float(meant.steps) if world.is_first else 0.0))
        steps = steps or _measure_steps(meant, sampler, world, initial_state)
        return meant.training(steps)
    if parent and training.steps <= parent.steps:
        raise UserError(
            f"training.steps is {training.steps}, and the run of {parent.study.training.length} "
            f"that it continues from has {parent.steps}: steps counts those of the earlier run too."
        )
    return meant.training(training.steps)


def _measure_steps(
    meant: PretrainingRun,
    sampler: "Sampler",
    world: RankInfo,
    initial_state: InitialState | None,
) -> int:
    """The last step of a run that starts, by its hours and its pace here; written down.

    Raises UserError where so few steps fit that no checkpoint, or no teacher, would come of it.
    """
    from ssl_pipeline.training.pace import measure_pace

    study, hours = meant.study, meant.study.training.added_hours or 0.0
    if world.is_first:
        info(f"pretrain: measures how many steps {hours:g} hours are here.")
    folder = meant.folder / layout.MEASURED_FOLDER
    trainer = build_measured_trainer(study, sampler, folder, world, initial_state)
    pace = measure_pace(trainer, min(MAX_MEASURED_S, MEASURED_SHARE * hours * 3600))
    each_s = pace.seconds_per_step(study.training, study.monitoring)
    added = steps_within(hours, each_s, study.training.checkpoint_every)
    steps = added + (meant.parent.steps if meant.parent else 0)
    fixed = study.model_copy(update={"training": meant.training(steps)})
    try:
        check_teacher(fixed, "objective", study.objective)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    if world.is_first:
        budget = TimeBudget(
            hours=hours,
            steps=steps,
            seconds_per_step=each_s,
            device=trainer.compute.device,
            ranks=world.world_size,
        )
        write_record(meant.folder / TIME_BUDGET_FILE, budget)
        info(f"pretrain: {hours:g} hours are {added} steps of {each_s:.3g} s here, and stay so.")
    return steps


def _parent_encoder(meant: PretrainingRun) -> "Encoder":
    """The encoder at the end of the run that this one continues."""
    objective = build_objective(random_encoder(meant.study, meant.study.seed), meant.study)
    objective.load_state_dict(_final_state(meant).objective)
    return objective.eval().encoder


def _final_state(meant: PretrainingRun) -> "TrainerState":
    """The final state of the run to continue from. Raises UserError where it has not ended."""
    from ssl_pipeline.training.checkpoint import load_newest

    assert meant.parent
    state = load_newest(layout.checkpoints_folder(meant.parent.folder))
    if state is None:
        raise missing_parent_error(meant.study, "has left no checkpoint here")
    if state.step < meant.parent.steps:
        raise missing_parent_error(meant.study, f"has come to step {state.step} only")
    # The embeddings are of a bank without the scans that came.
    state = replace(state, previous_embeddings=None, earlier_computes={})
    return state if meant.study.training.keep_moments else replace(state, optimizer={})


def _continuation_note(training: Training, parent: PretrainingRun) -> str:
    """What a run continues from, in words."""
    base = training.continue_from
    assert base
    return (
        f"continue_from: goes on to step {training.steps} on cohort {training.cohort} "
        f"from the end of the run of {base.steps} steps on cohort {base.cohort} "
        f"({parent.folder.name})."
    )
