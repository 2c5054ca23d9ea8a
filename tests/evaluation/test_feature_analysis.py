"""Metrics of features without labels, in cases with a known answer."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.robustness.feature_analysis import (
    explained_variance,
    feature_icc,
    neighbour_distance,
    ood_auroc,
)

ROWS = np.repeat(np.arange(20), 5)


def features(seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (100, 8)).astype(np.float32)


def test_equal_crops_are_detected_by_chance_and_distant_ones_surely():
    train, clean = features(0, 3), features(1, 3)
    near, far = neighbour_distance(train, clean), neighbour_distance(train, -clean)
    assert ood_auroc(near, near, ROWS, 20).value == pytest.approx(0.5)
    assert ood_auroc(near, far, ROWS, 20).value == pytest.approx(1)


def test_stability_is_one_without_change_and_falls_with_noise():
    clean = features(0)
    assert feature_icc(clean, clean, ROWS, 20).value == pytest.approx(1)
    half = feature_icc(clean, clean + features(1), ROWS, 20)
    # Mean squares of pairs x, x + e of equal variances are 2.5 between and .5 within.
    assert half.value == pytest.approx(2 / 3, abs=0.03)
    assert half.pseudovalues.mean() == pytest.approx(half.value, abs=0.05)
    assert abs(feature_icc(clean, features(2), ROWS, 20).value) < 0.15


def test_the_share_of_groups_is_zero_by_chance_and_known_where_they_differ():
    groups = ["a", "b"] * 10
    chance = [explained_variance(features(seed), ROWS, groups).value for seed in range(40)]
    assert abs(np.mean(chance)) < 0.03
    moved = features(0) + np.where(ROWS % 2, 5, -5)[:, None].astype(np.float32)
    assert explained_variance(moved, ROWS, groups).value > 0.95
    assert np.isnan(explained_variance(moved, ROWS, ["a"] * 20).value)
