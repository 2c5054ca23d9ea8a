"""Places of real volumes: the same whoever asks, and of different subjects."""

import dataclasses

import numpy as np
import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.views.augmentation import augment
from ssl_pipeline.views.config import AffineAugmentation, IntensityAugmentation, Views
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.views.sampler import Sampler

VIEWS = Views(crop_voxels=(16, 16, 16))


@pytest.fixture
def sampler(catalog, reader):
    return Sampler(catalog.entries, reader, VIEWS, (8, 8, 8), batch_size=4, seed=3)


def equal(first, second):
    return all(same(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def same(a, b):
    if dataclasses.is_dataclass(a):
        return equal(a, b)
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_a_batch_is_the_same_first_or_last_and_in_another_process(sampler, study, catalog):
    late = Sampler(
        catalog.entries,
        CropReader(study.folder / "preprocess" / "volumes", catalog),
        VIEWS,
        (8, 8, 8),
        batch_size=4,
        seed=3,
    )
    for step in range(3):
        sampler.batch(step)
    assert equal(sampler.batch(5), late.batch(5))
    assert not equal(sampler.batch(5), sampler.batch(6))


def test_ranks_draw_the_samples_of_one_rank_in_its_order(catalog, reader):
    every = IntensityAugmentation(
        noise_probability=1, blur_probability=1, window_probability=1, bias_probability=1
    )
    views = VIEWS.model_copy(
        update={"intensity": every, "affine": AffineAugmentation(probability=0.5)}
    )
    sampler = Sampler(catalog.entries, reader, views, (8, 8, 8), batch_size=4, seed=3)
    whole = sampler.batch(2)
    halves = [sampler.batch(2, RankInfo(rank, 2).micro_batches(4, 1)[0]) for rank in (0, 1)]
    assert np.concatenate([half.meta.number for half in halves]).tolist() == [8, 9, 10, 11]
    batch = crop_views(whole, views, (8, 8, 8))
    images = augment(batch, whole.params)
    for half, pairs in zip(halves, ([0, 1], [2, 3]), strict=True):
        mine, seen = pairs + [pair + 4 for pair in pairs], crop_views(half, views, (8, 8, 8))
        for name, values in vars(seen.meta).items():
            assert same(values, getattr(batch.meta, name)[pairs]), name
        for name in vars(seen).keys() - {"meta"}:
            assert same(getattr(seen, name), getattr(batch, name)[mine]), name
        assert torch.equal(augment(seen, half.params), images[mine])


def test_steps_that_share_what_is_read_see_other_views_of_it(catalog, reader):
    views = VIEWS.model_copy(update={"steps_per_read": 3})
    sampler = Sampler(catalog.entries, reader, views, (8, 8, 8), batch_size=4, seed=3)
    first, second, third, other = (sampler.batch(step) for step in range(4))
    for later in (second, third):
        assert torch.equal(first.voxels, later.voxels) and torch.equal(
            first.meta.subject, later.meta.subject
        )
        assert not np.array_equal(first.params.start, later.params.start)
        assert not torch.equal(first.params.order, later.params.order)
    assert not torch.equal(first.voxels, other.voxels)
    alone = Sampler(catalog.entries, reader, views, (8, 8, 8), batch_size=4, seed=3)
    assert equal(alone.batch(2), third)  # a resume in the middle reads the same again


def test_subjects_of_a_step_differ_while_there_are_enough(sampler):
    for step in range(20):
        assert len(set(sampler.batch(step).meta.subject.tolist())) == 4


def test_more_pairs_than_subjects_use_each_of_them(catalog, reader):
    sampler = Sampler(catalog.entries, reader, VIEWS, (8, 8, 8), batch_size=14, seed=0)
    counts = np.bincount(sampler.subjects(0), minlength=6)
    assert counts.min() == 2 and counts.max() == 3


def test_a_root_is_drawn_by_its_weight(catalog, reader):
    heavy = [
        dataclasses.replace(entry, root="a" if index < 1 else "b", weight=3.0 if index < 1 else 1.0)
        for index, entry in enumerate(catalog.entries)
    ]
    sampler = Sampler(heavy, reader, VIEWS, (8, 8, 8), batch_size=1, seed=0)
    drawn = np.concatenate([sampler.subjects(step) for step in range(1000)])
    first = sampler.subject_codes[heavy[0].subject]
    assert (drawn == first).mean() == pytest.approx(0.75, abs=0.05)


def test_volumes_and_subjects_are_drawn_by_their_weights(catalog, reader):
    subject = ("a", "a", "b", "c", "c", "c")
    weight = (3.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    entries = [
        dataclasses.replace(entry, root="r", subject=subject[index], weight=weight[index])
        for index, entry in enumerate(catalog.entries)
    ]
    sampler = Sampler(entries, reader, VIEWS, (8, 8, 8), batch_size=1, seed=0)
    drawn = np.concatenate([sampler.subjects(step) for step in range(1000)])
    assert (drawn == sampler.subject_codes["a"]).mean() == pytest.approx(2 / 3, abs=0.05)
    assert not (drawn == sampler.subject_codes["c"]).any()
    metas = [sampler.batch(step).meta for step in range(300)]
    first = sampler.subject_codes["a"]
    volumes = [meta.entry_index[0, 0] for meta in metas if meta.subject == first]
    assert np.mean(np.array(volumes) == 0) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("entries, crop, sentence", [(0, 16, "No volume"), (6, 12, "no multiple")])
def test_what_cannot_be_drawn_is_refused(catalog, reader, entries, crop, sentence):
    views = Views(crop_voxels=(crop, crop, crop))
    with pytest.raises(UserError, match=sentence):
        Sampler(catalog.entries[:entries], reader, views, (8, 8, 8), batch_size=2, seed=0)
