"""Intervals hold what they promise, and differences are paired."""

import numpy as np
import pytest

from ssl_pipeline.evaluation import statistics


def simulated(
    rng: np.random.Generator, subjects: int, seeds: int, between_seeds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tables of a method whose true score is 0.6, with spread over subjects and over seeds."""
    score = 0.6 + 0.15 * rng.normal(size=(1, subjects, 2))
    score = score + between_seeds * rng.normal(size=(seeds, 1, 1))
    score = score + 0.05 * rng.normal(size=(seeds, subjects, 2))
    return score, np.ones_like(score)


@pytest.mark.parametrize(("seeds", "between_seeds"), [(3, 0.01), (8, 0.03)])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(seeds, between_seeds):
    rng = np.random.default_rng(0)
    held = []
    for repetition in range(300):
        total, count = simulated(rng, 25, seeds, between_seeds)
        draws = statistics.draw(25, seeds, 400, repetition)
        low, high = statistics.interval(statistics.resampled(total, count, draws), 0.9)
        held.append(low <= 0.6 <= high)
    assert 0.82 < np.mean(held) < 0.96


def test_a_difference_is_paired_by_subject_and_seed():
    rng = np.random.default_rng(1)
    total, count = simulated(rng, 12, 3, 0.05)
    draws = statistics.draw(12, 3, 500, 0)
    better = statistics.resampled(total + 0.1, count, draws)
    difference = better - statistics.resampled(total, count, draws)
    assert np.allclose(difference, 0.1)


def test_the_metric_is_the_mean_over_classes_of_ratios_of_sums():
    total = np.array([[3.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    count = np.array([[4.0, 1.0, 0.0], [4.0, 1.0, 0.0]])
    assert statistics.metric(total.sum(axis=0), count.sum(axis=0)) == pytest.approx(0.5)
    assert np.isnan(statistics.metric(np.zeros(3), np.zeros(3)))


def test_a_draw_that_misses_a_class_leaves_it_out():
    total = np.zeros((2, 10, 2))
    count = np.zeros((2, 10, 2))
    total[:, :, 0], count[:, :, 0] = 1, 1
    count[:, 0, 1] = 1  # one subject shows the second class, and is wrong
    values = statistics.resampled(total, count, statistics.draw(10, 2, 300, 0))
    assert set(np.round(values, 6)) == {0.5, 1.0}
