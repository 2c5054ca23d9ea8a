"""The decoder of a U-Net behind the dense and the sparse pass of every backbone."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ssl_pipeline.models.encoder import CropFeatures, random_encoder
from ssl_pipeline.models.unet_config import unet_channels, unet_size
from ssl_pipeline.models.unet_decoder import UNetDecoder
from tests.models.test_contract import CROP, KINDS, PATCHES, crops_of

each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture(params=list(PATCHES), ids=str)
def patch(request):
    return request.param


def decoded(kind, patch):
    """A backbone's section, its encoder and decoder, and crops for them."""
    config = kind(patch_voxels=patch)
    encoder = random_encoder(config, 0)
    torch.manual_seed(0)
    return config, encoder, UNetDecoder(encoder), crops_of(config, 1)


@each
def test_no_hidden_voxel_reaches_a_map(kind, patch):
    config, encoder, decoder, (crops, spacing, order) = decoded(kind, patch)
    seen = order[:, : len(order[0]) // 2]
    shown = torch.zeros(1, config.token_count(CROP)).scatter(1, seen, 1.0)
    voxels = shown.reshape(1, 1, *(n // p for n, p in zip(CROP, patch, strict=True))) > 0
    for axis, side in enumerate(patch, 2):
        voxels = voxels.repeat_interleave(side, dim=axis)

    def maps(images):
        return decoder.decode(encoder.forward_features(images, spacing, seen), images, seen)

    crops.requires_grad_()
    before = maps(crops)
    sum((level * torch.randn_like(level)).sum() for level in before).backward()
    assert (crops.grad[~voxels] == 0).all() and (crops.grad[voxels] != 0).any()
    with torch.no_grad():
        after = maps(torch.where(voxels, crops, torch.nan))
    assert [level.shape[1] for level in after] == unet_channels(config) == decoder.channels
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@each
def test_where_all_is_seen_the_maps_are_those_of_the_dense_pass(kind, patch):
    _, encoder, decoder, (crops, spacing, order) = decoded(kind, patch)
    with torch.no_grad():
        dense = decoder(encoder, crops, spacing)
        sparse = decoder.decode(encoder.forward_features(crops, spacing, order), crops, order)
    for one, other in zip(dense, sparse, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@each
def test_its_size_is_counted_without_torch(kind, patch):
    config, encoder, decoder, (crops, spacing, _) = decoded(kind, patch)
    size = unet_size(config, CROP)
    assert size.parameter_count == sum(p.numel() for p in decoder.parameters())
    given = encoder.forward_features(crops, spacing)
    features = CropFeatures(given.tokens.detach(), [level.detach() for level in given.maps])
    known = {p.untyped_storage().data_ptr() for p in decoder.parameters()}
    known |= {level.untyped_storage().data_ptr() for level in features.maps}
    kept = {}

    def see(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = tensor, storage.nbytes() / 4
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor),
    ):
        decoder.decode(features, crops)
    assert size.forward_flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    saved = sum(numbers for pointer, (_, numbers) in kept.items() if pointer not in known)
    assert size.activation_count == pytest.approx(saved, rel=0.2)
