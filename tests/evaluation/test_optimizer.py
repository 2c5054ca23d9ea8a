"""Optimisers and schedules of fine-tuning take the steps that their formulas say."""

import numpy as np
import pytest
import torch
from torch import nn

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.finetuning.optimizer import (
    TrainingSettings,
    lr_schedule_factor,
    optimise,
)

STEPS, RATE = 3, 0.01


def train(gradient, **section):
    """A weight that begins at 0, after steps of a constant gradient; and the peak memory."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    plain = {"learning_rate": RATE, "head_lr_factor": 1, "warmup": 0, "weight_decay": 0}
    finetune = Finetune(steps=STEPS, **plain | {"precision": "fp32"} | section)
    settings = TrainingSettings(finetune, None, (8, 8, 8), 0, "cpu")
    peak_bytes = optimise(model, lambda step: gradient * model.weight.sum(), settings)
    return float(model.weight.item()), peak_bytes


@pytest.mark.parametrize(("gradient", "clipped"), [(2.0, 2.0), (100.0, 12.0)])
def test_sgd_has_the_momentum_the_norm_and_the_polynomial_of_nnunet(gradient, clipped):
    weight, momentum = 0.0, 0.0
    for step in range(STEPS):
        momentum = 0.99 * momentum + clipped
        weight -= RATE * (1 - step / STEPS) ** 0.9 * (clipped + 0.99 * momentum)
    found, _ = train(gradient, optimizer="sgd", schedule="polynomial")
    assert found == pytest.approx(weight, rel=1e-5)


def test_adamw_moves_a_weight_by_its_rate_whatever_the_gradient():
    rates = [RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS)) for step in range(STEPS)]
    for gradient in (0.5, 100.0):
        assert train(gradient)[0] == pytest.approx(-sum(rates), rel=1e-4)


def test_sgd_keeps_one_average_of_a_weight_where_adamw_keeps_two():
    (_, sgd), (_, adamw) = train(1.0, optimizer="sgd"), train(1.0)
    assert adamw - sgd == torch.float32.itemsize


@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
def test_a_rate_rises_to_its_peak_and_falls_to_nothing(schedule):
    section = Finetune(steps=100, warmup=0.1, schedule=schedule)
    factors = np.array([lr_schedule_factor(step, section) for step in range(100)])
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert (np.diff(factors[10:]) < 0).all() and factors[10] == 1
    assert 0 < factors[-1] < 0.02
