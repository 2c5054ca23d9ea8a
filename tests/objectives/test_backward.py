"""A step in several parts is the step in one: the same losses, the same gradient."""

import numpy as np
import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.objectives import Contrastive, Custom, Dense, Hybrid, Mae
from ssl_pipeline.objectives.backward import backward
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.terms.dense_contrast import DenseContrast
from ssl_pipeline.objectives.terms.dino import Dino
from ssl_pipeline.objectives.terms.ibot import Ibot
from ssl_pipeline.objectives.terms.koleo import Koleo
from ssl_pipeline.objectives.terms.lejepa import Lejepa
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.term import Ramp
from ssl_pipeline.training.distributed import RankGroup
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.views.augmentation import augment
from ssl_pipeline.views.config import LocalCrops, Views
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.views.patches import patchify
from ssl_pipeline.views.sampler import Sampler
from tests.training.small_trainer import THROUGH_UNET

PATCH = (4, 4, 4)
VIEWS = Views(crop_voxels=(16, 16, 16), local_crops=LocalCrops(number=2))
# Between subjects and between locations.
BOTH = Contrast(subject_weight=0.3, local_weight=1, similar_by={"age": 1})
OBJECTIVES = [
    Mae(),
    Mae(reconstruction=Reconstruction(decode_ratio=0.3, normalize_patches=True)),
    Contrastive(contrast=BOTH),
    Hybrid(ramp=Ramp(start=0, end=0), contrast=BOTH),
    Dense(dense_contrast=DenseContrast(points_per_axis=3)),
    Custom(terms=(Dino(prototypes=32), Ibot(prototypes=32), Koleo(), Lejepa(directions=16))),
    Custom(terms=THROUGH_UNET),
]


@pytest.fixture
def sampler(catalog, reader):
    traits = np.arange(len(catalog.entries), dtype=np.float32)[:, None]  # each a width apart
    return Sampler(
        catalog.entries, reader, VIEWS, PATCH, batch_size=8, seed=0, metadata_features=traits
    )


def see(blocks):
    batch = crop_views(blocks, VIEWS, PATCH)
    return batch, augment(batch, blocks.params)


def step(section, sampler, parts, *, share=1.0, scale=1.0):
    torch.manual_seed(0)
    objective = section.build(random_encoder(ViT(patch_voxels=PATCH), 0))
    losses = backward(
        objective,
        [sampler.batch(0, part) for part in RankInfo().micro_batches(8, parts)],
        see,
        share,
        RankGroup(RankInfo()),
        autocast=lambda: torch.autocast("cpu", enabled=False),
        scale_loss=lambda loss: loss * scale,
    )
    gradient = {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}
    return losses, torch.cat([g.flatten() for g in gradient.values()])


@pytest.mark.parametrize("section", OBJECTIVES, ids=lambda section: section.name)
def test_parts_of_a_batch_are_the_batch(section, sampler):
    whole, gradient = step(section, sampler, 1)
    for parts in (2, 4):
        losses, same = step(section, sampler, parts)
        assert losses.total.item() == pytest.approx(whole.total.item(), rel=1e-5)
        for name, mean in whole.teacher_means.items():
            assert torch.allclose(losses.teacher_means[name], mean, atol=1e-5)
        for name, value in whole.by_term.items():
            assert losses.by_term[name].item() == pytest.approx(value.item(), rel=1e-5), name
        assert (same - gradient).norm() < 1e-4 * gradient.norm()


def test_the_gradient_is_that_of_the_loss(sampler):
    """The slope along a random direction, by differences of the total loss."""
    section = Hybrid(ramp=Ramp(start=0, end=0), contrast=BOTH)
    _, gradient = step(section, sampler, 2)
    torch.manual_seed(0)
    objective = section.build(random_encoder(ViT(patch_voxels=PATCH), 0))
    named = dict(objective.named_parameters())
    torch.manual_seed(1)
    direction = {n: torch.randn_like(p) * p.abs().mean() for n, p in named.items()}
    slope = (gradient * torch.cat([d.flatten() for d in direction.values()])).sum().item()

    def total(distance):
        with torch.no_grad():
            for name, parameter in named.items():
                parameter += distance * direction[name]
        parts = [sampler.batch(0)]
        losses = backward(
            objective,
            parts,
            see,
            1.0,
            RankGroup(RankInfo()),
            autocast=lambda: torch.autocast("cpu", enabled=False),
            scale_loss=lambda loss: loss,
        )
        with torch.no_grad():
            for name, parameter in named.items():
                parameter -= distance * direction[name]
        return losses.total.item()

    eps = 1e-3
    assert (total(eps) - total(-eps)) / (2 * eps) == pytest.approx(slope, rel=0.02)


def test_what_is_differentiated_can_be_scaled(sampler):
    section = Hybrid(ramp=Ramp(start=0, end=0))
    (losses, gradient), (scaled, larger) = (step(section, sampler, 2, scale=s) for s in (1, 8))
    assert scaled.total.item() == losses.total.item()
    assert torch.allclose(larger, 8 * gradient, rtol=1e-4, atol=1e-7)


def test_before_the_ramp_contrast_pulls_nowhere(sampler):
    section = Hybrid(contrast=BOTH, ramp=Ramp(start=0.5, end=0.6))
    losses, gradient = step(section, sampler, 1, share=0.1)
    _, alone = step(Mae(), sampler, 1)
    assert losses.total == losses.by_term["reconstruction"]
    assert set(losses.by_term) == {"reconstruction", "subject_contrast", "local_contrast"}
    encoder = alone.numel()  # encoder and decoder come first, then the heads of contrast
    assert torch.equal(gradient[:encoder], alone) and not gradient[encoder:].any()


def test_decoding_less_rebuilds_less(sampler):
    batch, images = see(sampler.batch(0))
    few = Mae(reconstruction=Reconstruction(decode_ratio=0.25)).build(
        random_encoder(ViT(patch_voxels=PATCH), 0)
    )
    decoded = []
    hook = few.heads["reconstruction"].register_forward_hook(lambda *call: decoded.append(call[2]))
    few(batch, images)
    hook.remove()
    assert decoded[0].shape[1] == 12  # of 48 hidden tokens
    rebuilt = few.reconstruct(batch, images)  # pictures show them all
    seen = torch.ones(16, 64).scatter(1, batch.hidden, 0.0).bool()
    same = (patchify(rebuilt, PATCH) == patchify(batch.clean, PATCH)).all(-1)
    assert torch.equal(same, seen)


def test_patches_rebuilt_in_their_own_units_come_back_in_the_scans(sampler):
    batch, images = see(sampler.batch(0))
    section = Mae(reconstruction=Reconstruction(normalize_patches=True))
    objective = section.build(random_encoder(ViT(patch_voxels=PATCH), 0))
    torch.nn.init.zeros_(objective.heads["reconstruction"].to_voxels.weight)
    torch.nn.init.zeros_(objective.heads["reconstruction"].to_voxels.bias)
    rebuilt = patchify(objective.reconstruct(batch, images), PATCH)
    clean, valid = patchify(batch.clean, PATCH), patchify(batch.valid[:, None], PATCH)
    mean = (clean * valid).sum(-1) / valid.sum(-1).clamp(min=1)
    hidden = batch.hidden  # which a decoder that says 0 rebuilds as their means
    found = rebuilt.mean(-1).gather(1, hidden)
    assert torch.allclose(found, mean.gather(1, hidden), atol=1e-4)


def test_a_term_between_subjects_that_weighs_nothing_is_left_out(sampler):
    section = Contrastive(contrast=Contrast(subject_weight=0, local_weight=1))
    losses, _ = step(section, sampler, 1)
    assert set(losses.by_term) == {"local_contrast"}
    assert losses.total.item() == pytest.approx(losses.by_term["local_contrast"].item())
