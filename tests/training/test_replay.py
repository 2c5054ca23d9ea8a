"""Replay: which subjects of earlier cohorts are chosen, and how much of each step they get."""

import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.training.replay import RandomReplay, TypicalReplay
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import ReplayMix, Sampler


def not_needed():
    raise AssertionError("random replay needs no embedding")


@pytest.fixture
def sampler(catalog, reader):
    """Samplers of the tiny study's six subjects, of whom the first four are of earlier cohorts."""
    names = [entry.subject for entry in catalog.entries]

    def build(share, replayed, earlier=4):
        chosen = [names[index] for index in replayed]
        return Sampler(
            *(catalog.entries, reader, Views(crop_voxels=(16, 16, 16)), (8, 8, 8)),
            batch_size=4,
            seed=0,
            replay=ReplayMix(share, frozenset(names[:earlier]), frozenset(chosen)),
        )

    return build


def test_every_step_has_its_share_of_replayed_subjects_and_else_new_ones(sampler):
    half = sampler(0.5, [0, 2])
    steps = np.stack([half.subjects(step) for step in range(20)])
    assert (np.isin(steps, [0, 2]).sum(axis=1) == 2).all()
    assert set(steps.ravel()) == {0, 2, 4, 5}
    assert {tuple(np.isin(step, [0, 2])) for step in steps} > {(True, True, False, False)}
    assert (half.subjects(3) == sampler(0.5, [0, 2]).subjects(3)).all()


@pytest.mark.parametrize(("share", "earlier"), [(0.0, 0), (0.01, 1), (0.99, 3)])
def test_any_replay_is_a_sample_at_least_and_never_all(sampler, share, earlier):
    drawn = sampler(share, [0]).subjects(0)
    assert (drawn < 4).sum() == earlier


def test_a_replay_with_nobody_to_draw_is_one_sentence(sampler):
    with pytest.raises(UserError, match="finds no new subject to draw from"):
        sampler(0.5, [0], earlier=6)
    with pytest.raises(UserError, match="finds no earlier subject to draw from"):
        sampler(0.5, [])


def test_typical_subjects_are_one_of_each_group_and_its_middle():
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    around = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    vectors = np.concatenate([*(middles + step for step in around), middles])
    choice = TypicalReplay(subjects=3 / 15)
    assert choice.choose(15, lambda: vectors, rng).tolist() == [12, 13, 14]
    assert TypicalReplay(subjects=1.0).choose(5, not_needed, rng).tolist() == [0, 1, 2, 3, 4]


def test_random_subjects_are_as_many_as_asked_for():
    rng = np.random.default_rng(0)
    assert RandomReplay().choose(5, not_needed, rng).tolist() == [0, 1, 2, 3, 4]
    few = [tuple(RandomReplay(subjects=0.4).choose(5, not_needed, rng)) for _ in range(30)]
    assert len(set(few)) > 5 and all(len(set(each)) == 2 for each in few)
