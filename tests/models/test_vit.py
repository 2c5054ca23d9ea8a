"""The transformer's own: registers, drop path, attention, positions; see `test_contract`."""

import numpy as np
import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.models.decoder import ReconstructionDecoder
from ssl_pipeline.models.drop_path import draw_branch_factors
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.models.position_encoding import position_encoding
from ssl_pipeline.models.vit_config import ViTSize
from ssl_pipeline.views.patches import gather_tokens, patch_centres_mm, patchify


@pytest.fixture(scope="module")
def encoder():
    return random_encoder(ViT(), 0).eval()


def test_registers_add_to_a_pass_and_never_leave_it():
    crops, spacing = torch.randn(2, 1, 16, 16, 24), torch.ones(2, 3)
    seen = torch.tensor([[0, 3, 5], [1, 2, 11]])
    encoder = random_encoder(ViT(registers=4), 0).eval()
    with torch.no_grad():
        assert encoder(crops, spacing).shape == (2, 12, 128)
        assert encoder.forward_sparse(crops, spacing, seen).shape == (2, 3, 128)
        before = encoder(crops, spacing)
        encoder.registers.add_(1)
        assert not torch.allclose(before, encoder(crops, spacing))


def test_no_register_is_the_plain_transformer(encoder):
    assert not any("registers" in name for name in encoder.state_dict())


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_a_factor_of_one_is_timms_block_and_of_zero_skips_it(layer_scale):
    config = ViT(drop_path=0.2, registers=2, layer_scale=layer_scale)
    encoder = random_encoder(config, 0).eval()
    crops, spacing = torch.randn(3, 1, 16, 16, 16), torch.ones(3, 3)
    seen = torch.arange(8).expand(3, 8)
    factors = torch.ones(3, encoder.branches)
    factors[1] = 0
    with torch.no_grad():
        plain = encoder.forward_sparse(crops, spacing, seen)
        scaled = encoder.forward_sparse(crops, spacing, seen, factors)
        places = position_encoding(patch_centres_mm((16, 16, 16), (8, 8, 8), spacing), 128)
        skipped = encoder.norm(encoder.embed(patchify(crops, (8, 8, 8))) + places)
    assert encoder.branches == 12
    assert torch.allclose(scaled[[0, 2]], plain[[0, 2]], atol=1e-6)
    assert torch.allclose(scaled[1], skipped[1], atol=1e-6)


def test_a_model_has_no_branches_to_skip_unless_asked(encoder):
    assert encoder.branches == 0


def test_survival_is_a_function_of_sample_and_view_alone():
    whole = draw_branch_factors(0.5, 12, 3, [7, 8, 9])
    assert whole.shape == (6, 12) and whole.dtype == np.float32
    alone = draw_branch_factors(0.5, 12, 3, [8])
    assert np.array_equal(alone, whole[[1, 4]])
    assert not np.array_equal(whole[:3], whole[3:])
    torch.manual_seed(11)
    assert np.array_equal(whole, draw_branch_factors(0.5, 12, 3, [7, 8, 9]))
    assert not np.array_equal(whole, draw_branch_factors(0.5, 12, 4, [7, 8, 9]))


def test_survival_keeps_the_mean_and_grows_with_depth():
    factors = draw_branch_factors(
        0.4, 8, 0, range(3000)
    )  # rates of the four blocks: 0, .13, .27, .4
    assert (factors[:, :2] == 1).all()
    skipped = (factors == 0).mean(axis=0)
    assert np.allclose(skipped, np.linspace(0, 0.4, 4).repeat(2), atol=0.02)
    assert np.allclose(factors.mean(axis=0), 1, atol=0.03)
    assert np.allclose(np.unique(factors[:, -1]), [0, 1 / 0.6])
    assert draw_branch_factors(0.0, 0, 0, [1, 2]).shape == (4, 0)


def values_and_mixed(encoder, crops, spacing):
    """What the last block's attention mixes (batch, heads, tokens, width), and what it made."""
    found = {}
    attention = encoder.blocks[-1].attn
    hooks = [
        attention.qkv.register_forward_hook(lambda *a: found.update(qkv=a[2])),
        attention.proj.register_forward_pre_hook(lambda *a: found.update(mixed=a[1][0])),
    ]
    with torch.no_grad():
        encoder(crops, spacing)
    for hook in hooks:
        hook.remove()
    heads = found["qkv"].unflatten(-1, (3, attention.num_heads, -1))
    return heads[:, :, 2].transpose(1, 2), found["mixed"]


@pytest.mark.parametrize(("registers", "qk_norm"), [(0, False), (0, True), (3, False)])
def test_attention_is_what_the_last_block_uses(registers, qk_norm):
    encoder = random_encoder(ViT(registers=registers, qk_norm=qk_norm), 0).eval()
    crops, spacing = torch.randn(2, 1, 16, 24, 16), torch.ones(2, 3)
    with torch.no_grad():
        shares = encoder.attention(crops, spacing)
    assert shares.shape == (2, 4, 12, 12)
    assert torch.allclose(shares.sum(dim=-1), torch.ones(2, 4, 12), atol=1e-6)
    if not registers:  # with registers, rows are shared among patches alone
        values, mixed = values_and_mixed(encoder, crops, spacing)
        assert torch.allclose((shares @ values).transpose(1, 2).flatten(2), mixed, atol=1e-5)


def test_positions_depend_on_millimetres_alone():
    fine = patch_centres_mm((16, 16, 16), (8, 8, 8), torch.tensor([[1.0, 1.0, 1.0]]))
    coarse = patch_centres_mm((8, 8, 8), (4, 4, 4), torch.tensor([[2.0, 2.0, 2.0]]))
    assert torch.allclose(position_encoding(fine, 128), position_encoding(coarse, 128))
    assert len(position_encoding(fine, 128)[0].unique(dim=0)) == 8


@pytest.mark.parametrize("dim", [96, 100, 128])
def test_positions_fill_any_width(dim):
    assert position_encoding(torch.zeros(1, 5, 3), dim).shape == (1, 5, dim)


@pytest.mark.parametrize("fused", [True, False])
def test_the_decoder_says_what_whole_blocks_would(fused):
    """Its last block computes the wanted tokens alone."""
    torch.manual_seed(0)
    decoder = ReconstructionDecoder(16, 8, width=64, depth=2)
    for block in decoder.blocks:
        block.attn.fused_attn = fused
    places, tokens = torch.randn(2, 6, 3), torch.randn(2, 2, 16)
    visible, wanted = torch.tensor([[0, 3], [1, 5]]), torch.tensor([[1, 4, 5], [0, 2, 3]])
    full = torch.cat([decoder.embed(tokens), decoder.mask_token.expand(2, 3, 64)], dim=1)
    full = full + position_encoding(gather_tokens(places, torch.cat([visible, wanted], 1)), 64)
    for block in decoder.blocks:
        full = block(full)
    whole = decoder.to_voxels(decoder.norm(full[:, 2:]))
    said = decoder(tokens, visible, wanted, places)
    assert torch.allclose(said, whole, atol=1e-6)
    gradients = [
        torch.autograd.grad(out.square().sum(), decoder.parameters()) for out in (said, whole)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm().clamp(min=1e-3)


def test_the_decoder_can_learn_a_constant():
    torch.manual_seed(0)
    decoder = ReconstructionDecoder(16, 8, width=32, depth=1)
    places, tokens = torch.randn(2, 6, 3), torch.randn(2, 2, 16)
    visible, wanted = torch.tensor([[0, 3], [1, 5]]), torch.tensor([[1, 4, 5], [0, 2, 3]])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(60):
        loss = (decoder(tokens, visible, wanted, places) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_a_size_of_its_own_takes_the_place_of_the_presets():
    model = ViT(size=ViTSize(width=96, depth=2, heads=4, mlp_width=100), activation="gelu_tanh")
    encoder = model.build()
    assert (len(encoder.blocks), encoder.dim, model.head_width) == (2, 96, 24)
    assert encoder.blocks[0].mlp.fc1.weight.shape == (100, 96)
    assert model.parameter_count == sum(p.numel() for p in encoder.parameters())
    values = torch.linspace(-3, 3, 50)
    expected = torch.nn.functional.gelu(values, approximate="tanh")
    assert torch.equal(encoder.blocks[0].mlp.act(values), expected)


def test_heads_must_share_the_width():
    with pytest.raises(ValueError, match="heads is 5, and width 96 is no multiple of it"):
        ViTSize(width=96, depth=2, heads=5)
