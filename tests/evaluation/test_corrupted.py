"""Stored volumes made worse: the reader stands in for the study's own."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.corrupted import corrupted
from ssl_pipeline.evaluation.corruptions import ALL, CutField, Gamma, HuOffset
from ssl_pipeline.evaluation.crops import Volumes
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import VALID, model_input

PREPROCESS = Preprocess(foreground="all")


@pytest.fixture
def volumes(planted):
    return Volumes(planted.reader, {e.id: e for e in planted.catalog.entries})


def test_a_box_is_that_of_the_worse_volume_and_empty_outside(volumes):
    worse = corrupted(volumes, Gamma(), 3, PREPROCESS, 0)
    scan = next(iter(worse.entries))
    whole = worse.reader.volume(scan)
    assert np.array_equal(worse.reader.block(scan, (2, 3, 4), (5, 6, 7)), whole[:, 2:7, 3:9, 4:11])
    over = worse.reader.block(scan, (-2, 0, 0), (4, 4, 4))
    assert not over[:, :2].any() and np.array_equal(over[:, 2:], whole[:, :2, :4, :4])
    assert not worse.reader.block(scan, (-9, 0, 0), (4, 4, 4)).any()
    assert worse.reader.block(scan, (0, 0, 0), (4, 4, 4), slice(0, 1)).shape == (1, 4, 4, 4)


# Of an offset MR shows nothing, as a test below says.
@pytest.mark.parametrize(
    "corruption",
    [each for each in ALL if each.name != "hu_offset"],
    ids=lambda corruption: corruption.name,
)
def test_what_a_model_sees_is_another_and_a_function_of_seed_and_severity(volumes, corruption):
    scan = next(iter(volumes.entries))

    def seen(severity=3, seed=0):
        found = corrupted(volumes, corruption, severity, PREPROCESS, seed)
        return model_input(found.reader.volume(scan), found.entries[scan].meta)

    clean = model_input(volumes.reader.volume(scan), volumes.entries[scan].meta)
    first = seen()
    assert first.shape == clean.shape and not np.allclose(first, clean, atol=1e-3)
    assert np.array_equal(first, seen())
    assert not np.array_equal(first, seen(severity=4))


def test_mr_is_seen_in_the_window_that_the_worse_scan_would_have(volumes):
    scan = next(iter(volumes.entries))
    worse = corrupted(volumes, HuOffset(), 5, PREPROCESS, 0)  # of MR, any offset
    own, other = volumes.entries[scan].meta, worse.entries[scan].meta
    assert other.centre - own.centre == pytest.approx(other.low - own.low, abs=2 * own.scale)
    clean = model_input(volumes.reader.volume(scan), own)
    assert np.allclose(model_input(worse.reader.volume(scan), other), clean, atol=0.02)


def test_what_was_not_measured_is_not_valid(volumes):
    scan = next(iter(volumes.entries))
    worse = corrupted(volumes, CutField(), 5, PREPROCESS, 0)
    before, after = (reader.volume(scan)[1] & VALID for reader in (volumes.reader, worse.reader))
    assert after.sum() < 0.5 * before.sum()
    assert not after[:, 0, 0].any()
