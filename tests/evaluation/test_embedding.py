"""What features say without labels, in cases of which the truth is known."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.embedding import share_of, stability, strangeness, told_apart

ROWS = np.repeat(np.arange(20), 5)


def features(seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (100, 8)).astype(np.float32)


def test_the_same_crops_are_told_apart_by_chance_and_far_ones_surely():
    train, clean = features(0, 3), features(1, 3)
    near, far = strangeness(train, clean), strangeness(train, -clean)
    assert told_apart(near, near, ROWS, 20).value == pytest.approx(0.5)
    assert told_apart(near, far, ROWS, 20).value == pytest.approx(1)


def test_stability_is_one_without_change_and_falls_with_noise():
    clean = features(0)
    assert stability(clean, clean, ROWS, 20).value == pytest.approx(1)
    half = stability(clean, clean + features(1), ROWS, 20)
    # Mean squares of pairs x, x + e of equal variances are 2.5 between and .5 within.
    assert half.value == pytest.approx(2 / 3, abs=0.03)
    assert half.parts.mean() == pytest.approx(half.value, abs=0.05)
    assert abs(stability(clean, features(2), ROWS, 20).value) < 0.15


def test_the_share_of_groups_is_zero_by_chance_and_known_where_they_differ():
    groups = ["a", "b"] * 10
    chance = [share_of(features(seed), ROWS, groups).value for seed in range(40)]
    assert abs(np.mean(chance)) < 0.03
    moved = features(0) + np.where(ROWS % 2, 5, -5)[:, None].astype(np.float32)
    assert share_of(moved, ROWS, groups).value > 0.95
    assert np.isnan(share_of(moved, ROWS, ["a"] * 20).value)
