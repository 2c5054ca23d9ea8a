"""What a run goes on from: its own newest checkpoint, else what it begins with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.models.low_rank import add_updates
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.training.checkpoint import TrainerState, load_newest
from ssl_pipeline.training.config import LowRankUpdates, Training
from ssl_pipeline.training.metrics_log import METRICS_FILE, read_metrics

InitialState = Callable[[], TrainerState]


def starting_state(
    folder: Path,
    objective: Objective,
    training: Training,
    seed: int,
    initial_state: InitialState | None,
) -> TrainerState | None:
    """The newest checkpoint in a run's folder, else `initial_state`; None to begin anew.

    The objective's encoder gets the low-rank updates that are trained, where some are and the run
    has not ended. Raises UserError where checkpoints are lost, or the package for updates is
    missing.
    """
    state = load_newest(folder / "checkpoints")
    if state is None:
        _check_lost_checkpoint(folder, training)
        state = initial_state() if initial_state else None
        return _with_updates(objective, state, training.low_rank, seed)
    if training.low_rank and state.step < training.steps:
        _add_updates(objective, training.low_rank, seed)
    return state


def _with_updates(
    objective: Objective, state: TrainerState | None, section: LowRankUpdates | None, seed: int
) -> TrainerState | None:
    """The state of another run as one with updates, which has no moments of them yet."""
    if section is None:
        return state
    if state:
        objective.load_state_dict(state.objective)
    _add_updates(objective, section, seed)
    return state and replace(state, objective=objective.state_dict(), optimizer={})


def _add_updates(objective: Objective, section: LowRankUpdates, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_updates(objective.encoder, section.rank, section.alpha)


def _check_lost_checkpoint(folder: Path, training: Training) -> None:
    """Raise UserError where the log has steps that only a run with a checkpoint reaches."""
    first = training.first_step
    logged = max((row["step"] for row in read_metrics(folder / METRICS_FILE)), default=first)
    if logged > first + training.checkpoint_every:
        raise UserError(
            f"{folder} has logged {logged} steps and holds no complete checkpoint (a scratch disk "
            "that purges old files?): bring its folder checkpoints back, or remove the folder to "
            f"start anew from step {first}."
        )
