"""Coverage of intervals, error rate of tests, and pairing of differences."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.statistics.intervals import (
    MIN_SUBJECTS,
    confidence_interval,
    coverage_note,
    holm_correction,
    p_value,
    variance_components,
)
from tests.evaluation.simulation import SIMULATIONS, true_scores

RUNS = 800  # tests.bench.coverage has more of them, and more cases


def measure_coverage(name, subjects, between_seeds, confidence=0.95):
    """Coverage of intervals in simulated studies: of an arm, and of a difference."""
    world = SIMULATIONS[name]
    first, second = true_scores(world, between_seeds, 0.4)
    hits = np.zeros(2)
    for run in range(RUNS):
        one, other = world(np.random.default_rng(run), subjects, 3, between_seeds, 0.4)
        interval = other.with_interval(confidence, (0.0, 1.0))
        hits[0] += interval.low <= second <= interval.high
        apart = MetricEstimate(
            other.per_seed - one.per_seed, other.pseudovalues - one.pseudovalues
        ).with_interval(confidence)
        hits[1] += apart.low <= second - first <= apart.high
    return hits / RUNS


@pytest.mark.parametrize(("subjects", "between_seeds"), [(20, 0.1), (50, 0.0)])
@pytest.mark.parametrize("name", SIMULATIONS)
def test_intervals_have_their_nominal_coverage(name, subjects, between_seeds):
    shares = measure_coverage(name, subjects, between_seeds)
    assert np.all(shares >= 0.925) and np.all(shares <= 0.985)


def test_the_coverage_of_intervals_of_so_many_subjects_is_reported():
    assert "Too few subjects are scored for an interval, 9" in coverage_note(9)
    notes = {
        10: "of 10 to 20",
        19: "94 to 98 %",
        20: "93 to 98 %",
        50: "of 50 to 100",
        900: "92 to",
    }
    for subjects, words in notes.items():
        assert words in coverage_note(subjects)


@pytest.mark.parametrize("seeds", [1, 3])
def test_p_has_its_nominal_error_rate(seeds):
    world, wrong = SIMULATIONS["balanced accuracy"], 0
    for run in range(400):
        one, other = world(np.random.default_rng(run), 50, seeds, 0, 0)
        wrong += one.difference(other, 0.95).p < 0.05
    assert 0.02 <= wrong / 400 <= 0.08


def test_p_is_small_where_and_only_where_the_interval_excludes_zero():
    """Also where seeds differ so much that a test of subjects alone would be sure."""
    rng = np.random.default_rng(0)
    outcomes = set()
    for run in range(60):
        parts = rng.normal(0.1 * run / 60, 0.1, (1, 30)) + rng.normal(0, 0.03 * (run % 3), (3, 1))
        one = MetricEstimate(parts.mean(axis=1), parts + rng.normal(0, 0.05, (3, 30)))
        found = one.difference(MetricEstimate(np.zeros(3), np.zeros((3, 30))), 0.95)
        assert (found.p < 0.05) == (found.outcome != "undecided")
        outcomes.add(found.outcome)
    assert outcomes == {"better", "undecided"}


def test_p_without_variance_of_seeds_is_that_of_students_test():
    from scipy.stats import ttest_1samp

    parts = np.random.default_rng(3).normal(0.03, 0.1, (1, 25))
    zero = MetricEstimate(np.zeros(1), np.zeros((1, 25)))
    found = MetricEstimate(parts.mean(axis=1), parts).difference(zero, 0.95)
    assert found.p == pytest.approx(ttest_1samp(parts[0], 0).pvalue, abs=1e-6)


def test_a_clear_difference_remains_after_a_correction_for_hundreds():
    rng = np.random.default_rng(0)
    one, other = rng.normal(3, 1, (3, 40)), rng.normal(0, 1, (3, 40))
    assert max(holm_correction([p_value((one - other).mean(), one - other)] * 700)) < 0.05


def test_what_differs_by_nothing_but_subjects_has_students_interval():
    rng = np.random.default_rng(0)
    parts = rng.normal(0.7, 0.1, (1, 20))
    error = parts.std(ddof=1) / np.sqrt(20)
    assert variance_components(parts) == (pytest.approx(error**2), 0)
    low, high = confidence_interval(0.7, parts, 0.9)
    assert (high - low) / 2 == pytest.approx(1.729133 * error)  # of 19 degrees of freedom


def test_seeds_that_differ_systematically_widen_an_interval():
    rng = np.random.default_rng(0)
    parts = np.repeat(rng.normal(0.7, 0.1, (1, 40)), 3, axis=0)
    equal, apart = parts, parts + np.array([[-0.1], [0.0], [0.1]])
    narrow, wide = (confidence_interval(0.7, each, 0.95) for each in (equal, apart))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])
    assert variance_components(apart)[1] == pytest.approx(0.1**2 / 3)


def test_a_figure_without_spread_has_no_error():
    assert confidence_interval(0.5, np.full((3, 12), 0.5), 0.95) == (0.5, 0.5)


def test_a_difference_is_paired_by_subject_and_seed():
    rng = np.random.default_rng(1)
    parts = rng.normal(0.6, 0.2, (3, 12)) + rng.normal(0, 0.1, (3, 1))
    one, other = (MetricEstimate(p.mean(axis=1), p) for p in (parts, parts + 0.1))
    found = other.difference(one, 0.95)
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)
    assert found.p == 0  # nothing varies


def test_few_subjects_have_no_interval_and_no_p():
    few = np.random.default_rng(0).normal(0.5, 0.1, (3, MIN_SUBJECTS - 1))
    one = MetricEstimate(few.mean(axis=1), few)
    assert one.with_interval(0.95).low is None
    assert one.difference(one, 0.95).p is None


def test_an_interval_stays_within_the_limits_of_its_metric():
    parts = np.random.default_rng(0).normal(0.97, 0.5, (3, 12))
    low, high = confidence_interval(0.97, parts, 0.95, (0.0, 1.0))
    assert 0 < low < 0.97 < high < 1
    assert 0.97 - low > high - 0.97
    assert confidence_interval(1.94, 2 * parts, 0.95, (0.0, 2.0)) == pytest.approx(
        (2 * low, 2 * high)
    )
    assert confidence_interval(0.5, parts, 0.95, (-1e6, 1e6)) == pytest.approx(
        confidence_interval(0.5, parts, 0.95)
    )


def test_a_figure_at_its_limit_or_without_spread_has_an_interval_all_the_same():
    assert confidence_interval(1.0, np.ones((3, 12)), 0.95, (0.0, 1.0)) == (1, 1)
    assert confidence_interval(0.5, np.full((3, 12), 0.5), 0.95, (0.0, 1.0)) == (0.5, 0.5)


def test_holm_multiplies_the_smallest_by_all_and_never_turns_the_order():
    assert holm_correction([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_correction([0.5, 0.9]) == [1.0, 1.0]
    assert holm_correction([]) == []
