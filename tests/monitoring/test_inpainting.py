"""In-painting on crops whose hidden part is known, and skill at its three landmarks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_pipeline.monitoring.inpainting import (
    inpaint,
    visible_mask,
    voxel_mask,
)
from ssl_pipeline.objectives.losses import reconstruction_skill
from ssl_pipeline.views.patches import patchify


def a_quarter_seen(batch, size, patch, seed=0):
    tokens = math.prod(s // p for s, p in zip(size, patch, strict=True))
    source = torch.Generator().manual_seed(seed)
    visible = [
        torch.randperm(tokens, generator=source)[: tokens // 4].sort().values for _ in range(batch)
    ]
    return visible_mask(torch.stack(visible), tokens)


def test_seen_tokens_are_the_visible_ones():
    seen = visible_mask(torch.tensor([[0, 2], [1, 3]]), 4)
    assert seen.tolist() == [[True, False, True, False], [False, True, False, True]]


def test_voxels_of_seen_patches_are_marked_as_patchify_cuts_them():
    seen = a_quarter_seen(2, (8, 16, 8), (4, 8, 2))
    marked = voxel_mask(seen, (8, 16, 8), (4, 8, 2))
    assert torch.equal(patchify(marked, (4, 8, 2)).mean(dim=2), seen.float())


@settings(deadline=None, max_examples=20)
@given(
    value=st.floats(-3, 3),
    patch=st.tuples(*[st.integers(1, 5)] * 3),
    grid=st.tuples(*[st.integers(1, 4)] * 3),
    seed=st.integers(0, 99),
)
def test_a_constant_comes_back_exactly_and_seen_voxels_as_they_are(value, patch, grid, seed):
    size = tuple(p * g for p, g in zip(patch, grid, strict=True))
    source = torch.Generator().manual_seed(seed)
    seen = torch.rand(2, math.prod(grid), generator=source) < 0.5
    seen[:, 0] = True
    valid = torch.ones(2, *size)
    constant = torch.full((2, 1, *size), value)
    known = voxel_mask(seen, size, patch) > 0
    hidden_away = torch.where(known, constant, 77.0)
    assert torch.allclose(inpaint(hidden_away, seen, valid, patch), constant, atol=1e-5)
    noise = torch.randn(2, 1, *size, generator=source)
    assert torch.equal(inpaint(noise, seen, valid, patch)[known], noise[known])


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_row_of_patches_in_closed_form(axis):
    """Patches 0 and 2 of four hold 0 and 4; by hand, 0 1 3 4 are the middles of all four."""
    size, patch = [1, 1, 1], [1, 1, 1]
    size[axis - 2], patch[axis - 2] = 8, 2
    crops = torch.tensor([0.0, 0, 9, 9, 4, 4, 9, 9]).reshape(1, 1, *size)
    seen = torch.tensor([[True, False, True, False]])
    filled = inpaint(crops, seen, torch.ones(1, *size), tuple(patch))
    assert filled.flatten().tolist() == pytest.approx([0, 0, 0.75, 1.75, 4, 4, 4, 4])


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_linear_ramp_is_nearly_found(axis):
    size, patch = (32, 32, 32), (4, 4, 4)
    seen, valid = a_quarter_seen(4, size, patch), torch.ones(4, *size)
    shape = [1, 1, 1, 1, 1]
    shape[axis] = 32
    ramp = torch.linspace(-2, 2, 32).reshape(shape).expand(4, 1, *size).contiguous()
    hidden = 1 - voxel_mask(seen, size, patch)
    filled = inpaint(ramp * (1 - hidden), seen, valid, patch)
    assert reconstruction_skill(filled, torch.zeros_like(ramp), ramp, hidden) > 0.9


def test_what_is_not_valid_is_no_source():
    size, patch = (8, 8, 8), (4, 4, 4)
    seen, valid = torch.ones(1, 8, dtype=torch.bool), torch.ones(1, *size)
    valid[:, :4] = 0
    crops = torch.ones(1, 1, *size)
    crops[:, :, :4] = -50
    assert torch.allclose(inpaint(crops, seen, valid, patch), torch.ones(1, 1, *size))


def test_without_any_source_the_value_is_zero():
    crops = torch.randn(2, 1, 8, 8, 8)
    seen = torch.zeros(2, 8, dtype=torch.bool)
    assert torch.equal(
        inpaint(crops, seen, torch.ones(2, 8, 8, 8), (4, 4, 4)), torch.zeros_like(crops)
    )
