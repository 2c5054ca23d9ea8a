"""The encoder inside other libraries' networks: equal features, gradients, MONAI's own code."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.feature_map import FeatureMap, UnetrTokens
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder

SPACING_MM = (3.0, 1.0, 0.8)


@pytest.fixture
def encoder(bundle):
    return load_encoder(bundle).model


@pytest.mark.parametrize("model", [ViT(), ResEnc()], ids=lambda model: model.name)
def test_each_token_lies_where_its_patch_does(model):
    encoder = random_encoder(model, 7)
    images = torch.randn(2, 1, 16, 24, 32)
    features = FeatureMap(encoder, SPACING_MM)(images)
    tokens = encoder(images, torch.tensor([SPACING_MM]).repeat(2, 1))
    assert features.shape == (2, 128, 2, 3, 4)
    for token, (z, y, x) in enumerate(np.ndindex(2, 3, 4)):
        assert torch.allclose(features[:, :, z, y, x], tokens[:, token], atol=1e-5)


def test_images_that_are_no_whole_patches_are_refused(encoder):
    with pytest.raises(UserError, match="cannot be cut into patches of"):
        FeatureMap(encoder, SPACING_MM)(torch.zeros(1, 1, 16, 20, 16))


class Primus(nn.Module):
    """Voxel classes from the token map by transposed convolutions alone, as Primus has them."""

    def __init__(self, features, classes):
        super().__init__()
        self.features = features
        widths = (128, 32, 16, classes)
        self.up = nn.Sequential(*(nn.ConvTranspose3d(a, b, 2, 2) for a, b in pairwise(widths)))

    def forward(self, images):
        return self.up(self.features(images))


def test_a_decoder_learns_through_it(encoder):
    net = Primus(FeatureMap(encoder, SPACING_MM), classes=3)
    out = net(torch.randn(1, 1, 16, 16, 16))
    assert out.shape == (1, 3, 16, 16, 16)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_monais_sliding_windows_are_a_tiling(encoder):
    inferers = pytest.importorskip("monai.inferers")
    features, volume = FeatureMap(encoder, SPACING_MM), torch.randn(1, 1, 32, 48, 16)
    with torch.inference_mode():
        said = inferers.SlidingWindowInferer((16, 16, 16), sw_batch_size=4, overlap=0)(
            volume, features
        )
        assert said.shape == (1, 128, 4, 6, 2)
        for z in (0, 2):
            for y in (0, 2, 4):
                window = features(volume[:, :, 8 * z : 8 * z + 16, 8 * y : 8 * y + 16])
                assert torch.allclose(said[:, :, z : z + 2, y : y + 2], window, atol=1e-5)


def test_monais_sliding_windows_may_overlap_by_whole_patches(encoder):
    inferers = pytest.importorskip("monai.inferers")
    features, volume = FeatureMap(encoder, SPACING_MM), torch.randn(1, 1, 24, 16, 16)
    with torch.inference_mode():
        said = inferers.SlidingWindowInferer((16, 16, 16), overlap=0.5)(volume, features)
        low, high = features(volume[:, :, :16]), features(volume[:, :, 8:])
    middle = (low[:, :, 1] + high[:, :, 0]) / 2
    expected = torch.stack([low[:, :, 0], middle, high[:, :, 1]], dim=2)
    assert torch.allclose(said, expected, atol=1e-5)


@pytest.mark.parametrize(("preset", "width", "heads"), [("tiny", 128, 4), ("S", 384, 6)])
def test_monais_unetr_runs_with_the_encoder_inside(preset, width, heads):
    nets = pytest.importorskip("monai.networks.nets")
    encoder = random_encoder(ViT(preset=preset, patch_voxels=(16, 16, 16), registers=2), 7)
    net = nets.UNETR(1, 2, (32, 32, 32), 4, hidden_size=width, mlp_dim=4 * width, num_heads=heads)
    net.vit = UnetrTokens(encoder, SPACING_MM)
    images = torch.randn(1, 1, 32, 32, 32)
    tokens, hidden = net.vit(images)
    assert torch.equal(tokens, encoder(images, torch.tensor([SPACING_MM])))
    assert len(hidden) == 12 and torch.equal(encoder.norm(hidden[-1]), tokens)
    assert not encoder.blocks[0]._forward_hooks
    out = net(images)
    assert out.shape == (1, 2, 32, 32, 32)
    out.square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_unetr_refuses_patches_that_are_not_its_own(encoder):
    with pytest.raises(UserError, match="needs a vision transformer with patches"):
        UnetrTokens(encoder, SPACING_MM)
