"""Retention: nothing is to be kept at the start, and what has moved is drawn back."""

import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.objectives import Custom
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.retain import Retain
from ssl_pipeline.views.augmentation import augmented_views
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler
from tests.training.small_trainer import build_objective

MODEL = ViT(patch_voxels=(4, 4, 4))


@pytest.fixture(scope="module")
def crops(catalog, reader):
    views = Views(crop_voxels=(16, 16, 16))
    sampler = Sampler(catalog.entries, reader, views, MODEL.patch_voxels, batch_size=3, seed=0)
    return augmented_views(sampler.batch(0), views, MODEL.patch_voxels)


@pytest.fixture
def objective():
    return build_objective(Custom(terms=(Reconstruction(), Retain())), MODEL)


def loss(objective, crops):
    return objective.mean_losses(objective(*crops))["retain"]


def test_nothing_is_lost_at_the_start_and_gradients_draw_back_what_has_moved(objective, crops):
    assert loss(objective, crops).item() == 0
    start = [p.detach().clone() for p in objective.encoder.parameters()]
    with torch.no_grad():
        for parameter in objective.encoder.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    optimizer = torch.optim.Adam(objective.encoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        losses.append(loss(objective, crops))
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 0.001 and losses[-1] < 0.7 * losses[0]
    initial = objective.initial_encoder.parameters()
    assert all(torch.equal(p, then) for p, then in zip(initial, start, strict=True))


def test_a_resumed_run_keeps_near_the_same_encoder(objective, crops):
    with torch.no_grad():
        next(objective.encoder.parameters()).add_(0.1)
    resumed = Custom(terms=(Reconstruction(), Retain())).build(MODEL.build())
    resumed.load_state_dict(objective.state_dict())
    assert loss(resumed, crops).item() == pytest.approx(loss(objective, crops).item(), rel=1e-5)


def test_it_compares_the_mean_square_of_visible_tokens(objective, crops):
    with torch.no_grad():
        next(objective.encoder.parameters()).add_(0.1)
        batch, images = crops
        now = objective.encode(batch, images)
        then = objective.initial_encoder.forward_features(images, batch.spacing_mm, batch.visible)
        wanted = (now - then.tokens).square().mean().item()
        assert loss(objective, crops).item() == pytest.approx(wanted, rel=1e-5)
