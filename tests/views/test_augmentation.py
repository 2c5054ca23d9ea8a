"""Changes of grey values: drawn by counter, each view apart, and never where nothing was stored."""

import pytest
import torch

from ssl_pipeline.views.augmentation import HIGH, LOW, augment
from ssl_pipeline.views.config import IntensityAugmentation, Views
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.views.sampler import Sampler

PATCH = (8, 8, 8)
NOTHING = IntensityAugmentation(
    contrast=0,
    brightness=0,
    gamma=0,
    noise_probability=0,
    blur_probability=0,
    window_probability=0,
    bias_probability=0,
)
EVERY = IntensityAugmentation(
    noise_probability=1,
    blur_probability=1,
    low_resolution_probability=1,
    window_probability=1,
    bias_probability=1,
)


@pytest.fixture
def changed(catalog, reader):
    """The batch and its images with a section's changes."""

    def build(section, seed=3):
        views = Views(crop_voxels=(16, 16, 16), intensity=section)
        sampler = Sampler(catalog.entries, reader, views, PATCH, batch_size=4, seed=seed)
        blocks = sampler.batch(2)
        blocks.voxels[:, 1, :, :20] = 0  # a strip that was not stored
        batch = crop_views(blocks, views, PATCH)
        return batch, augment(batch, blocks.params)

    return build


def test_changes_are_drawn_by_counter_and_spare_padding(changed):
    batch, first = changed(EVERY)
    assert torch.equal(first, changed(EVERY)[1])
    assert not torch.allclose(first, changed(EVERY, seed=4)[1])
    outside = batch.valid[:, None] == 0
    assert outside.any()
    assert torch.equal(first[outside], batch.clean[outside])
    assert not torch.allclose(first[:4], first[4:])


def test_no_change_is_none(changed):
    batch, images = changed(NOTHING)
    assert torch.allclose(images, batch.clean, atol=1e-6)


def test_blur_keeps_the_mean_and_takes_away_detail(changed):
    batch, images = changed(NOTHING.model_copy(update={"blur_probability": 1, "blur_voxels": 2}))
    assert images.std() < batch.clean.std()
    assert images.mean().item() == pytest.approx(batch.clean.mean().item(), abs=0.05)


def test_a_coarse_view_has_lost_detail_and_no_brightness(changed):
    coarse = {"low_resolution_probability": 1, "low_resolution": 4}
    batch, images = changed(NOTHING.model_copy(update=coarse))
    assert images.std() < batch.clean.std()
    assert images.mean().item() == pytest.approx(batch.clean.mean().item(), abs=0.1)
    assert not torch.allclose(images, batch.clean, atol=0.1)


def test_a_bias_field_is_smooth_and_never_turns_black_to_grey(changed):
    batch, images = changed(NOTHING.model_copy(update={"bias_probability": 1, "bias": 1.0}))
    there = (batch.valid[:, None] > 0) & (batch.clean > LOW + 0.3)
    gain = ((images - LOW) / (batch.clean - LOW)).log2()[there]
    assert gain.abs().max() <= 1 + 1e-4 and gain.std() > 0.02
    flat = batch.clean[:1] * 0 + 1
    shaded = (images[:1] - LOW) / (batch.clean[:1] - LOW).clamp(min=0.3) * flat
    assert shaded[0, 0].diff(dim=0).abs().median() < 0.2


def test_a_window_cuts_the_ends_and_spreads_the_rest(changed):
    batch, images = changed(NOTHING.model_copy(update={"window_probability": 1, "window": 0.3}))
    inside = batch.valid[:, None] > 0
    assert images[inside].min() >= LOW - 1e-5 and images[inside].max() <= HIGH + 1e-5
    middle = inside & (batch.clean > -0.5) & (batch.clean < 0.5)
    order = batch.clean[0][middle[0]].argsort()
    assert images[0][middle[0]][order].diff().min() >= -1e-5  # never turns dark and bright round
    assert not torch.allclose(images[inside], batch.clean[inside].clamp(LOW, HIGH), atol=1e-2)
