"""Crops of real volumes: the same whoever asks, of different subjects, of the same millimetres."""

import dataclasses

import numpy as np
import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.world import World
from ssl_pipeline.views.augment import augment
from ssl_pipeline.views.config import Intensity, Views
from ssl_pipeline.views.sampler import Sampler

VIEWS = Views(crop_voxels=(16, 16, 16))


@pytest.fixture
def sampler(catalog, reader):
    return Sampler(catalog.entries, reader, VIEWS, (8, 8, 8), pairs=4, seed=3)


def equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True)
    )


def test_a_batch_is_the_same_first_or_last_and_in_another_process(sampler, study, catalog):
    late = Sampler(
        catalog.entries,
        CropReader(study.folder / "preprocess" / "volumes", catalog),
        VIEWS,
        (8, 8, 8),
        pairs=4,
        seed=3,
    )
    for step in range(3):
        sampler.batch(step)
    assert equal(sampler.batch(5), late.batch(5))
    assert not equal(sampler.batch(5), sampler.batch(6))


def test_ranks_draw_the_samples_of_one_rank_in_its_order(sampler):
    section = Intensity(noise_share=1, blur_share=1)
    whole, halves = sampler.batch(2), [sampler.batch(2, World(r, 2).part(4)) for r in (0, 1)]
    assert torch.cat([half.number for half in halves]).tolist() == [8, 9, 10, 11]
    images = augment(whole, section, 3)
    for half, pairs in zip(halves, ([0, 1], [2, 3]), strict=True):
        views = pairs + [pair + 4 for pair in pairs]
        for name, values in vars(half).items():
            mine = pairs if name in ("subject", "number") else views
            assert torch.equal(values, getattr(whole, name)[mine]), name
        assert torch.equal(augment(half, section, 3), images[views])


def test_subjects_of_a_step_differ_while_there_are_enough(sampler):
    for step in range(20):
        assert len(set(sampler.batch(step).subject.tolist())) == 4


def test_more_pairs_than_subjects_use_each_of_them(catalog, reader):
    sampler = Sampler(catalog.entries, reader, VIEWS, (8, 8, 8), pairs=14, seed=0)
    counts = np.bincount(sampler.subjects(0), minlength=6)
    assert counts.min() == 2 and counts.max() == 3


def test_a_root_is_drawn_by_its_weight(catalog, reader):
    heavy = [
        dataclasses.replace(entry, root="a" if index < 1 else "b", weight=3.0 if index < 1 else 1.0)
        for index, entry in enumerate(catalog.entries)
    ]
    sampler = Sampler(heavy, reader, VIEWS, (8, 8, 8), pairs=1, seed=0)
    drawn = np.concatenate([sampler.subjects(step) for step in range(1000)])
    first = sampler._code[heavy[0].subject]
    assert (drawn == first).mean() == pytest.approx(0.75, abs=0.05)


def test_shared_voxels_of_two_views_are_the_same_voxels(sampler):
    batch = sampler.batch(0)
    for pair in range(4):
        first, second = batch.clean[pair, 0], batch.clean[pair + 4, 0]
        spacing = batch.spacing_mm[pair]
        offset = (
            torch.round((batch.start_mm[pair + 4] - batch.start_mm[pair]) / spacing).int().tolist()
        )
        mine = tuple(slice(max(o, 0), 16 + min(o, 0)) for o in offset)
        theirs = tuple(slice(max(-o, 0), 16 - max(o, 0)) for o in offset)
        assert torch.equal(first[mine], second[theirs])
        assert first[mine].numel() >= 0.3 * 16**3


def test_seen_tokens_are_stored_voxels(sampler):
    batch = sampler.batch(1)
    assert batch.visible.shape == (8, 2)
    assert batch.valid.mean() > 0.5


def test_mirrored_views_are_mirrored_alike(catalog, reader):
    views = VIEWS.model_copy(update={"flip": ("x", "y", "z")})
    plain = Sampler(catalog.entries, reader, VIEWS, (8, 8, 8), pairs=4, seed=3)
    flipped = Sampler(catalog.entries, reader, views, (8, 8, 8), pairs=4, seed=3)
    changed = 0
    for step in range(4):
        before, after = plain.batch(step).clean, flipped.batch(step).clean
        for pair in range(4):
            axes = [
                axes
                for axes in ([], [1], [2], [3], [1, 2], [1, 3], [2, 3], [1, 2, 3])
                if torch.equal(before[pair].flip(axes), after[pair])
                and torch.equal(before[pair + 4].flip(axes), after[pair + 4])
            ]
            assert axes
            changed += axes[0] != []
    assert changed


@pytest.mark.parametrize("entries, crop, sentence", [(0, 16, "No volume"), (6, 12, "no multiple")])
def test_what_cannot_be_drawn_is_refused(catalog, reader, entries, crop, sentence):
    views = Views(crop_voxels=(crop, crop, crop))
    with pytest.raises(UserError, match=sentence):
        Sampler(catalog.entries[:entries], reader, views, (8, 8, 8), pairs=2, seed=0)


def test_augmentation_is_drawn_by_counter_and_spares_padding(sampler):
    batch = sampler.batch(2)
    section = Intensity(noise_share=1, blur_share=1)
    first, again = augment(batch, section, 3), augment(batch, section, 3)
    assert torch.equal(first, again)
    assert not torch.allclose(first, augment(batch, section, 4))
    outside = batch.valid[:, None] == 0
    assert torch.equal(first[outside], batch.clean[outside])
    assert not torch.allclose(first[:4], first[4:])


def test_no_augmentation_is_none(sampler):
    batch = sampler.batch(2)
    nothing = Intensity(
        contrast=0, brightness=0, gamma=0, noise=0, noise_share=0, blur_voxels=0, blur_share=0
    )
    assert torch.allclose(augment(batch, nothing, 0), batch.clean, atol=1e-6)


def test_blur_keeps_the_mean_and_takes_away_detail(sampler):
    batch = sampler.batch(2)
    blur = Intensity(
        contrast=0, brightness=0, gamma=0, noise=0, noise_share=0, blur_voxels=2, blur_share=1
    )
    images = augment(batch, blur, 0)
    assert images.std() < batch.clean.std()
    assert images.mean().item() == pytest.approx(batch.clean.mean().item(), abs=0.05)
