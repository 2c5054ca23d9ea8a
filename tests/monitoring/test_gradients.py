"""The ratio of gradients on a toy whose gradients are known in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_pipeline.monitoring.gradients import gradient_norms, gradient_ratio, gradient_share_outside


@given(weight=st.floats(0.01, 100))
def test_the_ratio_is_that_of_the_closed_form(weight):
    shared = torch.tensor([3.0, 4.0], requires_grad=True)
    reconstruction = shared.square().sum() / 2  # gradient (3, 4), norm 5
    contrast = weight * shared.sum()  # gradient weight (1, 1)
    ratio = gradient_ratio(contrast, reconstruction, [shared])
    assert ratio == pytest.approx(weight * math.sqrt(2) / 5, rel=1e-5)


def test_norms_join_all_parameters_and_leave_the_step_alone():
    layer, other = torch.nn.Linear(2, 1), torch.nn.Linear(1, 1)
    out = layer(torch.tensor([[3.0, 4.0]])).sum()  # gradient (3, 4) and 1
    loss = 2 * out
    norms = gradient_norms([loss, other(torch.ones(1, 1)).sum()], layer.parameters())
    assert norms == [pytest.approx(2 * math.sqrt(26)), 0]
    assert layer.weight.grad is None
    loss.backward()  # the graph is still there
    assert layer.bias.grad.item() == 2


def test_a_part_without_gradient_has_no_ratio():
    shared = torch.tensor([1.0], requires_grad=True)
    loss = shared.sum()
    assert math.isnan(gradient_ratio(loss, torch.tensor(1.0), [shared]))
    assert math.isnan(gradient_ratio(loss * math.inf, loss, [shared]))
    assert gradient_ratio(0 * loss, loss, [shared]) == 0
    assert gradient_ratio(torch.tensor(1.0), loss, [shared]) == 0


def test_a_gradient_lies_where_the_loss_looks():
    voxels = torch.zeros(2, 4, requires_grad=True)
    weight = torch.tensor([[3.0, 3, 0, 0], [-1, 1, 0, 0]])
    (gradient,) = torch.autograd.grad((voxels * weight).sum(), voxels)
    body = torch.tensor([[True, True, False, False], [False, False, True, True]])
    assert gradient_share_outside(gradient, body) == pytest.approx(0.25)
    assert gradient_share_outside(gradient, weight != 0) == 0
    assert math.isnan(gradient_share_outside(torch.zeros(2, 4), body))
