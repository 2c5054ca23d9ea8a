"""Recolouring: classes of intensity get drawn grey values where they are, in second views alone."""

import pytest
import torch

from ssl_pipeline.views.augmentation import HIGH, LOW, augmented_views
from ssl_pipeline.views.config import IntensityAugmentation, Recolour, Views
from ssl_pipeline.views.recolour import intensity_classes, recolour
from ssl_pipeline.views.sampler import Sampler
from tests.conftest import crash_at_step
from tests.training.small_trainer import VIEWS, small_trainer, trained_weights

PATCH = (8, 8, 8)
ALWAYS = Recolour(probability=1, classes=3)
NO_CHANGE = IntensityAugmentation(
    contrast=0, brightness=0, gamma=0, noise_probability=0, blur_probability=0
)


@pytest.fixture
def views_of(catalog, reader):
    """Samples of real heads, one strip of each missing, their batch and its images."""

    def build(section, seed=3, intensity=NO_CHANGE):
        views = Views(crop_voxels=(16, 16, 16), recolour=section, intensity=intensity)
        sampler = Sampler(catalog.entries, reader, views, PATCH, batch_size=4, seed=seed)
        samples = sampler.batch(2)
        samples.voxels[:, 1, :, :12] = 0
        return samples, *augmented_views(samples, views, PATCH)

    return build


def planted_phantom():
    """Two crops of three grey levels in boxes, with noise, and the level of each voxel."""
    level = torch.zeros(2, 12, 12, 12, dtype=torch.long)
    level[:, 2:8], level[:, :, 3:9, 9:] = 1, 2
    level[1] = level[1].flip(0)
    noise = 0.05 * torch.randn(level.shape, generator=torch.Generator().manual_seed(0))
    return torch.tensor([-2.0, 0.1, 0.9])[level] + noise, level


def test_classes_are_the_levels_of_a_phantom():
    grey, level = planted_phantom()
    measured = torch.ones_like(level, dtype=torch.bool)
    assert torch.equal(intensity_classes(grey, measured, 3), level)
    measured[:, :2] = False
    changed = torch.where(measured, grey, torch.nan)
    assert torch.equal(intensity_classes(changed, measured, 3)[measured], level[measured])


@pytest.mark.parametrize("is_measured", [True, False])
def test_a_crop_of_one_value_has_one_class(is_measured):
    grey = torch.full((1, 4, 4, 4), 0.5)
    classes = intensity_classes(grey, torch.full(grey.shape, is_measured), 4)
    assert len(classes.unique()) == 1


def test_means_of_classes_become_the_drawn_values(views_of):
    samples, batch, images = views_of(ALWAYS)
    measured = batch.valid[4:] > 0
    classes = intensity_classes(batch.clean[4:, 0], measured, 3)
    assert samples.params.class_values.abs().max() <= HIGH
    for view in range(4):
        for number in range(3):
            inside = measured[view] & (classes[view] == number)
            assert inside.any()
            before, after = batch.clean[4 + view, 0][inside], images[4 + view, 0][inside]
            value, gain = samples.params.class_values[view], samples.params.class_gains[view]
            assert after.mean().item() == pytest.approx(value[number].item(), abs=1e-3)
            assert torch.allclose(
                after - after.mean(), gain[number] * (before - before.mean()), atol=1e-3
            )


def test_first_views_and_what_was_not_stored_stay_as_they_are(views_of):
    _, batch, images = views_of(ALWAYS)
    assert torch.allclose(images[:4], batch.clean[:4], atol=1e-6)
    outside = batch.valid[:, None] == 0
    assert outside[4:].any()
    assert torch.equal(images[outside], batch.clean[outside])
    assert not torch.allclose(images[4:], batch.clean[4:], atol=0.1)


def test_missing_voxels_may_be_nan(views_of):
    samples, batch, _ = views_of(ALWAYS)
    there = batch.valid[:, None] > 0
    changed = recolour(torch.where(there, batch.clean, torch.nan), batch.valid, samples.params)
    assert torch.equal(changed.isnan(), ~there)
    assert torch.equal(changed[there], recolour(batch.clean, batch.valid, samples.params)[there])


def test_it_changes_nothing_else_of_a_sample(views_of):
    plain, recoloured = views_of(Recolour(), intensity=IntensityAugmentation()), views_of(ALWAYS)
    assert not len(plain[0].params.recoloured_index)
    for name in ("clean", "valid", "body_share", "visible", "hidden", "spacing_mm", "start_mm"):
        assert torch.equal(getattr(plain[1], name), getattr(recoloured[1], name))
    same = views_of(ALWAYS, intensity=IntensityAugmentation())
    assert torch.equal(plain[2][:4], same[2][:4])


def test_it_is_drawn_by_seed_and_sample(views_of):
    samples, _, images = views_of(ALWAYS)
    assert torch.equal(images, views_of(ALWAYS)[2])
    assert not torch.equal(images, views_of(ALWAYS, seed=4)[2])
    values = samples.params.class_values
    assert len({tuple(row) for row in values.tolist()}) == 4
    assert values.min() >= LOW and values.max() <= HIGH


def test_a_fraction_of_samples_is_recoloured(catalog, reader):
    views = Views(crop_voxels=(16, 16, 16), recolour=Recolour(probability=0.5))
    sampler = Sampler(catalog.entries, reader, views, PATCH, batch_size=4, seed=0)
    drawn = [sampler.batch(step).params.recoloured_index for step in range(10)]
    assert 10 < sum(map(len, drawn)) < 30
    assert all((index >= 4).all() and (index < 8).all() for index in drawn)


def test_a_resumed_run_ends_as_an_undisturbed_one(study, tmp_path):
    views = VIEWS.model_copy(update={"recolour": Recolour(probability=0.5)})
    ends = {
        name: trained_weights(small_trainer(tmp_path / name, study.folder, views=own))
        for name, own in {"plain": VIEWS, "whole": views}.items()
    }
    crash_at_step(small_trainer(tmp_path / "cut", study.folder, views=views), 2)
    ends["cut"] = trained_weights(small_trainer(tmp_path / "cut", study.folder, views=views))
    assert torch.equal(ends["cut"], ends["whole"])
    assert not torch.equal(ends["whole"], ends["plain"])
