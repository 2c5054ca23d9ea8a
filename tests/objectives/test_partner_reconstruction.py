"""Reconstruction of one scan's hidden patches from the visible ones of another of the visit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_pipeline.models import ViT
from ssl_pipeline.models.vit_config import ViTSize
from ssl_pipeline.monitoring.inpainting import visible_mask, voxel_mask
from ssl_pipeline.monitoring.shortcuts import separate_views
from ssl_pipeline.objectives import Custom
from ssl_pipeline.objectives.terms.partner_reconstruction import PartnerReconstruction
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.volumes.volume import Volume
from tests.training.small_trainer import build_objective
from tests.views.partner_scans import FRAME, PATCH, VIEWS, partner_sampler, sequences

MODEL = ViT(patch_voxels=PATCH, size=ViTSize(width=48, depth=1, heads=2))
TERM = PartnerReconstruction(decoder_depth=1)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Pairs of two real sequences on two grids."""
    head, other = sequences()
    folder = tmp_path_factory.mktemp("pairs")
    sampler = partner_sampler(folder, (head, FRAME), (other, FRAME))
    return crop_views(sampler.batch(0), VIEWS, PATCH)


@pytest.fixture
def objective():
    return build_objective(Custom(terms=(TERM,)), MODEL)


def with_pairs(batch, is_pair):
    """The batch as if only these of its samples had a common frame."""
    return replace(batch, meta=replace(batch.meta, shares_place=torch.tensor(is_pair)))


def sum_and_count(objective, batch, images=None):
    outputs = objective(batch, batch.clean if images is None else images)
    return outputs.sums["partner_reconstruction"], outputs.counts["partner_reconstruction"]


def test_no_hidden_voxel_reaches_it(objective, batch):
    known = visible_mask(batch.visible, batch.body_share.shape[1])
    shown = voxel_mask(known, VIEWS.crop_voxels, PATCH) > 0
    before = sum_and_count(objective, batch)
    after = sum_and_count(objective, batch, torch.where(shown, batch.clean, torch.nan))
    assert before[1] > 0 and torch.equal(before[0], after[0])


def test_a_scan_is_predicted_from_the_other_alone(objective, batch):
    of_second = batch.valid_share.clone(), batch.valid.clone()
    for each in of_second:
        each[:4] = 0  # nothing of the first views is left to predict
    images = batch.clean.clone().requires_grad_()
    part = replace(with_pairs(batch, [True] * 4), valid_share=of_second[0], valid=of_second[1])
    sum_and_count(objective, part, images)[0].backward()
    assert images.grad[:4].abs().max() > 0 and images.grad[4:].abs().max() == 0


def test_samples_without_a_common_frame_contribute_nothing(objective, batch):
    total, count = sum_and_count(objective, with_pairs(batch, [True] * 4))
    parts = [
        sum_and_count(objective, with_pairs(batch, [number == only for number in range(4)]))
        for only in range(4)
    ]
    assert all(count > 0 for _, count in parts)
    assert sum(part.item() for part, _ in parts) == pytest.approx(total.item(), rel=1e-4)
    assert sum(part.item() for _, part in parts) == pytest.approx(count.item(), rel=1e-4)


@pytest.mark.parametrize("reason", ["no frame", "one scan"])
def test_a_batch_without_a_pair_has_a_loss_of_zero_with_a_graph(objective, batch, reason):
    none = torch.zeros(4, dtype=torch.bool)
    field = {"no frame": "shares_place", "one scan": "has_partner"}[reason]
    alone = replace(batch, meta=replace(batch.meta, **{field: none}))
    loss = objective.mean_losses(objective(alone, alone.clean))["partner_reconstruction"]
    loss.backward()
    assert loss.item() == 0
    gradients = [parameter.grad for parameter in objective.parameters()]
    assert all(gradient is not None and (gradient == 0).all() for gradient in gradients)


def test_patches_that_the_other_crop_does_not_show_do_not_count(batch):
    objective = build_objective(Custom(terms=(TERM,)), MODEL)
    pairs = with_pairs(batch, [True] * 4)
    far = sum_and_count(objective, separate_views(pairs, 100.0, PATCH))[1]
    assert far == 0
    spacing = pairs.spacing_mm.clone()
    spacing[4:] = spacing[:4]
    same = replace(pairs, spacing_mm=spacing, start_mm=torch.zeros_like(spacing))
    weight = torch.where(same.body_share >= 0.5, 1.0, TERM.background_weight)
    everything = (same.valid_share * weight).gather(1, same.hidden).sum() * 64
    assert everything > 0
    assert sum_and_count(objective, same)[1].item() == pytest.approx(everything.item(), rel=1e-5)


def last_losses(folder, head, other):
    """Mean loss of steps 20 to 39 of a training on pairs of a head and another scan."""
    changed = {"crop_voxels": (8, 8, 8), "overlap": (1.0, 1.0), "visible_ratio": 0.7}
    views = VIEWS.model_copy(update=changed | {"min_valid": 0.8})
    sampler = partner_sampler(folder, (head, FRAME), (other, FRAME), views=views, batch_size=16)
    objective = build_objective(Custom(terms=(TERM,)), MODEL)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    losses = []
    for step in range(40):
        batch = crop_views(sampler.batch(step), views, PATCH)
        loss = objective.mean_losses(objective(batch, batch.clean))["partner_reconstruction"]
        optimizer.zero_grad()
        loss.backward()
        gradients = [parameter.grad for parameter in objective.parameters()]
        assert all(gradient.isfinite().all() for gradient in gradients)
        optimizer.step()
        losses.append(loss.item())
    return np.mean(losses[20:])


def test_the_same_place_of_another_scan_teaches_what_another_place_does_not(tmp_path):
    head, _ = sequences()
    moved = np.roll(head.data[::-1], head.data.shape[1] // 2, axis=1)
    same, unrelated = (
        last_losses(tmp_path / name, head, Volume(data.copy(), head.affine))
        for name, data in {"same": head.data, "unrelated": moved}.items()
    )
    assert same < 0.95 * unrelated
