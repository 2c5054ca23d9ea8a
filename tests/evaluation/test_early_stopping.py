"""Held-out subjects choose the weights, and end a training that no longer improves."""

import numpy as np
import pytest
from torch import nn

from ssl_pipeline.evaluation.finetuning.early_stopping import EarlyStopping, hold_out


def train(losses, steps=100):
    """A model whose weight is the step, checked until training is over; the steps that it took."""
    model, remaining = nn.Linear(1, 1, bias=False), iter(losses)
    stopping = EarlyStopping(lambda model: next(remaining), steps)
    for step in range(steps):
        nn.init.constant_(model.weight, step)
        if stopping.is_due(step):
            stopping.check(model)
            if stopping.is_over:
                break
    stopping.restore(model)
    return int(model.weight.item()), step + 1


def test_the_best_weights_are_restored_and_training_ends_without_improvement():
    assert train([5, 3, 4, 3.5, 3.2, 1, 1, 1, 1, 1]) == (19, 50)
    assert train(range(10, 0, -1)) == (99, 100)


def test_losses_that_are_no_numbers_leave_the_last_weights():
    assert train([float("nan")] * 10) == (29, 30)


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.01, 1), (0.5, 3)])
def test_a_share_of_the_subjects_is_held_out_whole(share, number):
    subjects = [*"abcdef", *"abc"]
    assert len(hold_out(subjects, share, np.random.default_rng(0))) == number


def test_one_subject_alone_is_trained_on():
    assert hold_out(["a", "a"], 0.5, np.random.default_rng(0)) == frozenset()
