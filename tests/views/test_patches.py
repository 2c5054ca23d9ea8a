"""Cutting crops into patches, and which of them are seen."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_pipeline.views.masking import choose_visible
from ssl_pipeline.views.patches import (
    patch_centres_mm,
    patch_share,
    patchify,
    pool_tokens,
    unpatchify,
)
from ssl_pipeline.views.rng import generator


@given(grid=st.tuples(*[st.integers(1, 4)] * 3), patch=st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
def test_patches_put_together_are_the_crop(grid, patch):
    size = tuple(g * p for g, p in zip(grid, patch, strict=True))
    crop = torch.arange(np.prod(size), dtype=torch.float32).reshape(1, 1, *size)
    patches = patchify(crop, patch)
    assert patches.shape == (1, np.prod(grid), np.prod(patch))
    assert torch.equal(unpatchify(patches, size, patch), crop)


def test_a_patch_lies_where_its_voxels_lie():
    size, patch, spacing = (8, 16, 8), (4, 4, 4), torch.tensor([[3.0, 2.0, 1.0]])
    axes = [torch.arange(n, dtype=torch.float32) + 0.5 - n / 2 for n in size]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = size[axis]
        ramp = (axes[axis] * spacing[0, axis]).reshape(shape).expand(1, 1, *size)
        middles = patchify(ramp.contiguous(), patch).mean(dim=-1)
        assert torch.allclose(patch_centres_mm(size, patch, spacing)[..., axis], middles, atol=1e-5)


def test_shares_and_pooling():
    mask = torch.zeros(1, 4, 4, 4)
    mask[:, :2, :2, :1] = 1
    share = patch_share(mask, (2, 2, 2))
    assert share[0, 0] == 0.5 and share[0, 1:].sum() == 0
    tokens = torch.arange(8.0).reshape(1, 8, 1)
    assert pool_tokens(tokens, (share >= 0.5).float()).item() == 0
    assert pool_tokens(tokens, torch.zeros(1, 8)).item() == 3.5


@given(
    seed=st.integers(0, 1000),
    valid=st.integers(32, 64),
    inside=st.integers(0, 64),
    cap=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_seen_tokens_are_valid_distinct_and_mostly_inside(seed, valid, inside, cap):
    shares = torch.zeros(1, 64)
    shares[:, :valid] = 1
    body = torch.zeros(1, 64)
    body[:, : min(inside, valid)] = 1
    order = torch.from_numpy(generator(seed, 0, "mask").random((1, 64), np.float32))
    chosen, rest = choose_visible(shares, body, order, count=16, max_background=cap)
    assert sorted(torch.cat([chosen, rest], 1)[0].tolist()) == list(range(64))
    assert chosen[0].tolist() == sorted(chosen[0].tolist())
    assert shares[0][chosen[0]].min() == 1
    outside = int((body[0][chosen[0]] == 0).sum())
    assert outside <= max(int(cap * 16), 16 - min(inside, valid))


def test_who_is_seen_does_not_depend_on_who_is_seen_beside_it():
    shares, body, order = torch.rand(3, 8, 64, generator=torch.Generator().manual_seed(0))
    whole = choose_visible(shares, body, order, count=16, max_background=0.2)
    alone = choose_visible(shares[3:4], body[3:4], order[3:4], count=16, max_background=0.2)
    assert all(torch.equal(a[3:4], b) for a, b in zip(whole, alone, strict=True))


def test_randomness_is_a_function_of_its_key_alone():
    def draw(seed: int, number: int, purpose: str) -> list[float]:
        return generator(seed, number, purpose).random(3).tolist()

    assert draw(1, 2, "a") == draw(1, 2, "a")
    assert (
        len({tuple(draw(*key)) for key in [(1, 2, "a"), (1, 2, "b"), (1, 3, "a"), (2, 2, "a")]})
        == 4
    )
