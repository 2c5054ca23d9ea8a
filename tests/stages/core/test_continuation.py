"""Ways to continue a finished run: with its moments or without, or by low-rank updates."""

import pytest
import torch

from ssl_pipeline.errors import UserError
from stages.core.runner import run_stage
from tests.conftest import crash_at_step
from tests.stages.core.test_pretraining_runs import (
    CONTINUED,
    SETTINGS,
    continue_study,
    place,
    trained,
    trainer_of,
    weights,
)

__all__ = ["place", "trained"]  # fixtures
LOW_RANK = CONTINUED.replace("continue_from", "low_rank: {rank: 2}, continue_from")


def test_moments_are_kept_or_begin_anew(place):
    file = place("moments")
    parent = trainer_of(continue_study(file, SETTINGS.replace("12", "6") + "checkpoint_every: 2}"))
    kept = trainer_of(continue_study(file))
    assert (
        kept.optimizer.state_dict()["state"].keys() == parent.optimizer.state_dict()["state"].keys()
    )
    forgotten = CONTINUED.replace("continue_from", "keep_moments: false, continue_from")
    anew = trainer_of(continue_study(file, forgotten))
    assert anew.step == kept.step == 6 and not anew.optimizer.state
    assert anew.folder != kept.folder


def test_a_run_by_low_rank_updates_ends_in_plain_weights_whether_killed_or_not(place):
    pytest.importorskip("peft")
    whole, cut = (continue_study(place(name), LOW_RANK) for name in ("whole", "cut"))
    before = weights(whole)
    run_stage("pretrain", whole, {})
    run = trainer_of(cut)
    assert any("lora" in name for name in run.objective.encoder.state_dict())
    crash_at_step(run, 9)
    run_stage("pretrain", cut, {})
    after = weights(whole)
    assert after.keys() == before.keys()
    assert all(torch.equal(weights(cut)[name], weight) for name, weight in after.items())
    changed = {n: after[n] - before[n] for n in before if not torch.equal(after[n], before[n])}
    assert changed and all(change.ndim == 2 for change in changed.values())
    assert {int(torch.linalg.matrix_rank(change)) for change in changed.values()} == {2}
    ended = trainer_of(whole)
    found = ended.objective.encoder.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in after.items())


def test_what_was_continued_by_low_rank_updates_is_continued_as_any_other(place):
    pytest.importorskip("peft")
    file = place("again")
    study = continue_study(file, LOW_RANK)
    run_stage("pretrain", study, {})
    after = weights(study)
    again = SETTINGS.replace("12", "14") + (
        "continue_from: {steps: 12, low_rank: {rank: 2}, continue_from: {steps: 6}}}"
    )
    run = trainer_of(continue_study(file, again))
    assert run.step == 12 and not run.optimizer.state
    found = run.objective.encoder.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in after.items())


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (SETTINGS + "low_rank: {}}", "updates weights that were trained before: give"),
        (
            LOW_RANK.replace("steps: 12", "ema_decay: 0.9, steps: 12"),
            "of which there is no average",
        ),
    ],
)
def test_low_rank_updates_of_nothing_are_refused(place, training, message):
    with pytest.raises(UserError, match=message):
        continue_study(place("refused"), training)
