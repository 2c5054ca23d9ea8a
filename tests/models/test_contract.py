"""What every member of the union of backbones does, so that a new one is tested by being listed."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.encoder import random_encoder

KINDS = get_args(get_args(ModelConfig)[0])
CROP = (16, 16, 32)
PATCHES = {(8, 8, 8): 16, (4, 8, 8): 32}  # tokens of the crop

each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture(params=list(PATCHES), ids=str)
def patch(request):
    return request.param


def crops_of(config, number=2):
    torch.manual_seed(0)
    tokens = config.token_count(CROP)
    order = torch.stack([torch.randperm(tokens) for _ in range(number)])
    return torch.randn(number, 1, *CROP), torch.ones(number, 3), order


@each
def test_tokens_are_those_of_the_patches(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, order) = random_encoder(config, 0), crops_of(config)
    assert encoder.patch == patch and encoder.dim == config.width
    assert encoder(crops, spacing).shape == (2, PATCHES[patch], config.width)
    assert encoder.forward_sparse(crops, spacing, order[:, :3]).shape == (2, 3, config.width)


@each
def test_all_tokens_seen_is_the_dense_pass_in_the_order_asked_for(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, order) = random_encoder(config, 0).eval(), crops_of(config)
    with torch.no_grad():
        dense, sparse = encoder(crops, spacing), encoder.forward_sparse(crops, spacing, order)
    for row in range(2):
        assert torch.allclose(sparse[row], dense[row, order[row]], atol=1e-5)


@each
def test_the_last_map_of_a_pyramid_holds_the_tokens(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, _) = random_encoder(config, 0), crops_of(config)
    maps = encoder.pyramid(encoder.forward_features(crops, spacing), crops)
    assert encoder.pyramid_channels == config.pyramid_channels
    assert tuple(each.shape[1] for each in maps) == config.pyramid_channels
    assert torch.equal(maps[-1].flatten(2).transpose(1, 2), encoder(crops, spacing))
    voxels = [each[0, 0].numel() for each in maps]
    assert voxels == sorted(voxels, reverse=True) and len(set(voxels)) == len(voxels)


@each
def test_hidden_voxels_do_not_reach_the_seen_tokens(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, order) = random_encoder(config, 0), crops_of(config)
    seen = order[:, : len(order[0]) // 2]
    shown = torch.zeros(2, config.token_count(CROP)).scatter(1, seen, 1.0)
    grid = [side // step for side, step in zip(CROP, patch, strict=True)]
    voxels = shown.reshape(2, 1, *grid) > 0
    for axis, side in enumerate(patch, 2):
        voxels = voxels.repeat_interleave(side, dim=axis)
    for hidden in (5.0, torch.inf, torch.nan):
        changed = torch.where(voxels, crops, hidden)
        with torch.no_grad():
            before, after = (encoder.forward_sparse(c, spacing, seen) for c in (crops, changed))
        assert torch.equal(before, after)


@each
def test_a_seen_voxel_reaches_other_tokens(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, _) = random_encoder(config, 0), crops_of(config)
    changed = crops.clone()
    changed[..., 0] += 3
    with torch.no_grad():
        moved = (encoder(changed, spacing) - encoder(crops, spacing)).abs().amax(dim=2)
    assert (moved > 1e-4).all()


@each
def test_neither_a_crop_nor_its_order_depends_on_the_batch(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, order) = random_encoder(config, 0), crops_of(config, 3)
    with torch.no_grad():
        together = encoder.forward_sparse(crops, spacing, order[:, :5])
        alone = encoder.forward_sparse(crops[1:2], spacing[1:2], order[1:2, :5])
    assert torch.allclose(together[1:2], alone, atol=1e-5)


@each
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_every_weight_gets_a_gradient(kind, patch, precision):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, order) = random_encoder(config, 0).train(), crops_of(config)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        tokens = encoder.forward_sparse(crops, spacing, order[:, :6])
    (tokens.float() * torch.randn(tokens.shape)).sum().backward()
    for name, weight in encoder.named_parameters():
        assert torch.isfinite(weight.grad).all() and (weight.grad != 0).any(), name


@each
def test_weights_are_a_function_of_the_seed(kind):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (random_encoder(kind(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


@each
def test_parameters_are_counted_exactly(kind, patch):
    for preset in get_args(kind.model_fields["preset"].annotation):
        config = kind(patch_voxels=patch, preset=preset)
        with torch.device("meta"):
            encoder = config.build()
        assert config.parameter_count == sum(p.numel() for p in encoder.parameters()), preset


@each
def test_operations_of_a_pass_are_those_that_torch_counts(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, order) = random_encoder(config, 0), crops_of(config, 1)
    for seen in (len(order[0]), 5):
        # Fused attention on a CPU is not counted.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            encoder.forward_sparse(crops, spacing, order[:, :seen])
        flops = config.forward_flops(seen, CROP)
        assert flops == pytest.approx(counter.get_total_flops(), rel=0.15)


@each
def test_numbers_kept_are_those_that_autograd_saves(kind, patch):
    config = kind(patch_voxels=patch)
    encoder, (crops, spacing, order) = random_encoder(config, 0), crops_of(config, 1)
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept = {}

    def see(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = tensor, storage.nbytes() / 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        encoder.forward_sparse(crops, spacing, order[:, :8])
    saved = sum(size for pointer, (_, size) in kept.items() if pointer not in weights)
    assert config.activation_count(8, CROP) == pytest.approx(saved, rel=0.2)


@each
def test_its_section_is_known_by_its_name(kind):
    said = kind().model_dump(mode="json")
    assert TypeAdapter(ModelConfig).validate_python(said) == kind()
