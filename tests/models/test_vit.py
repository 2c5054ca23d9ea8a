"""The encoder: sparse equals dense where it can, positions are relative and in millimetres."""

import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.models.decoder import Decoder
from ssl_pipeline.models.positions import positions
from ssl_pipeline.models.vit import random_encoder
from ssl_pipeline.views.tokens import centres_mm


@pytest.fixture(scope="module")
def encoder():
    return random_encoder(ViT(), 0).eval()


def test_all_tokens_seen_is_the_dense_pass(encoder):
    crops, spacing = torch.randn(2, 1, 16, 16, 24), torch.ones(2, 3)
    everything = torch.arange(12).expand(2, 12)
    with torch.no_grad():
        dense, sparse = encoder(crops, spacing), encoder.sparse(crops, spacing, everything)
    assert dense.shape == (2, 12, 128)
    assert torch.allclose(dense, sparse, atol=1e-5)


def test_hidden_voxels_do_not_reach_the_seen_tokens(encoder):
    crops, spacing = torch.randn(1, 1, 16, 16, 16), torch.ones(1, 3)
    changed = crops.clone()
    changed[..., 8:, :, :] += 10  # patches 4 to 7
    seen = torch.tensor([[0, 2, 3]])
    with torch.no_grad():
        assert torch.equal(
            encoder.sparse(crops, spacing, seen), encoder.sparse(changed, spacing, seen)
        )


def test_random_weights_are_a_function_of_the_seed():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (random_encoder(ViT(), seed) for seed in (1, 1, 2))
    assert torch.equal(first.embed.weight, again.embed.weight)
    assert not torch.equal(first.embed.weight, other.embed.weight)
    assert torch.equal(before, torch.random.get_rng_state())


def test_positions_depend_on_millimetres_alone():
    fine = centres_mm((16, 16, 16), (8, 8, 8), torch.tensor([[1.0, 1.0, 1.0]]))
    coarse = centres_mm((8, 8, 8), (4, 4, 4), torch.tensor([[2.0, 2.0, 2.0]]))
    assert torch.allclose(positions(fine, 128), positions(coarse, 128))
    assert len(positions(fine, 128)[0].unique(dim=0)) == 8


@pytest.mark.parametrize("dim", [96, 100, 128])
def test_positions_fill_any_width(dim):
    assert positions(torch.zeros(1, 5, 3), dim).shape == (1, 5, dim)


def test_the_decoder_can_learn_a_constant():
    torch.manual_seed(0)
    decoder = Decoder(16, 8, width=32, depth=1)
    places, tokens = torch.randn(2, 6, 3), torch.randn(2, 2, 16)
    visible, wanted = torch.tensor([[0, 3], [1, 5]]), torch.tensor([[1, 4, 5], [0, 2, 3]])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(60):
        loss = (decoder(tokens, visible, wanted, places) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
