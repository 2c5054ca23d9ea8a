"""The reader of corrupted volumes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ssl_pipeline.evaluation.corruptions import ALL_CORRUPTIONS, BiasField, CutField, Gamma
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.robustness.corrupted_reader import corrupt_volumes
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import VALID, model_input
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader

PREPROCESS = Preprocess(foreground="all")


@pytest.fixture
def volumes(planted):
    return StoredVolumes(planted.reader, {e.id: e for e in planted.catalog.entries})


def test_a_crop_is_that_of_the_corrupted_volume_and_empty_outside(volumes):
    corrupted = corrupt_volumes(volumes, Gamma(), 3, PREPROCESS, 0)
    scan = next(iter(corrupted.entries))
    whole = corrupted.reader.read_volume(scan)
    assert np.array_equal(
        corrupted.reader.read_crop(scan, (2, 3, 4), (5, 6, 7)), whole[:, 2:7, 3:9, 4:11]
    )
    over = corrupted.reader.read_crop(scan, (-2, 0, 0), (4, 4, 4))
    assert not over[:, :2].any() and np.array_equal(over[:, 2:], whole[:, :2, :4, :4])
    assert not corrupted.reader.read_crop(scan, (-9, 0, 0), (4, 4, 4)).any()
    assert corrupted.reader.read_crop(scan, (0, 0, 0), (4, 4, 4), slice(0, 1)).shape == (1, 4, 4, 4)


@pytest.fixture
def as_ct(volumes):
    """The same volumes, declared as CT."""
    entries = [as_modality(entry, "CT") for entry in volumes.entries.values()]
    reader = CropReader(volumes.reader.folder, Catalog(tuple(entries)))
    return StoredVolumes(reader, {entry.id: entry for entry in entries})


def as_modality(entry, modality):
    meta = replace(entry.meta, modality=modality)
    return replace(entry, modality=modality, meta_json=json.dumps(meta.to_json()))


@pytest.mark.parametrize("corruption", ALL_CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_what_a_model_sees_is_another_and_a_function_of_seed_and_severity(
    volumes, as_ct, corruption
):
    volumes, others = (volumes, as_ct) if corruption.MODALITY == "MR" else (as_ct, volumes)
    scan = next(iter(volumes.entries))

    def seen(severity=3, seed=0):
        found = corrupt_volumes(volumes, corruption, severity, PREPROCESS, seed)
        return model_input(found.reader.read_volume(scan), found.entries[scan].meta)

    clean = model_input(volumes.reader.read_volume(scan), volumes.entries[scan].meta)
    first = seen()
    assert first.shape == clean.shape and not np.allclose(first, clean, atol=1e-3)
    assert np.array_equal(first, seen())
    assert not np.array_equal(first, seen(severity=4))
    same = corrupt_volumes(others, corruption, 5, PREPROCESS, 0)  # of the other modality
    assert np.array_equal(same.reader.read_volume(scan), others.reader.read_volume(scan))


def test_mr_that_becomes_brighter_is_not_cut_off(volumes):
    scan = next(iter(volumes.entries))
    corrupted = corrupt_volumes(volumes, BiasField(), 4, PREPROCESS, 0)
    numbers = corrupted.reader.read_volume(scan)[0]
    assert len(np.unique(numbers)) > 1000 and (numbers == numbers.max()).sum() < 10
    own, other = volumes.entries[scan].meta, corrupted.entries[scan].meta
    before = volumes.reader.read_volume(scan)[0] * own.scale + own.offset
    after = numbers * other.scale + other.offset
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.3
    assert (other.low, other.high) != (own.low, own.high)


def test_what_was_not_measured_is_not_valid(as_ct):
    volumes = as_ct
    scan = next(iter(volumes.entries))
    corrupted = corrupt_volumes(volumes, CutField(), 5, PREPROCESS, 0)
    before, after = (
        reader.read_volume(scan)[1] & VALID for reader in (volumes.reader, corrupted.reader)
    )
    assert after.sum() < 0.5 * before.sum()
    assert not after[:, 0, 0].any()
