"""The energy test of two samples: its level, its power, and its statistic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from ssl_pipeline.evaluation.statistics import two_sample
from ssl_pipeline.evaluation.statistics.two_sample import PERMUTATIONS, energy_p_value

REPEATS, LEVEL = 200, 0.05


@pytest.fixture
def few_permutations(monkeypatch):
    monkeypatch.setattr(two_sample, "PERMUTATIONS", 99)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy"])
@pytest.mark.usefixtures("few_permutations")
def test_equal_distributions_are_told_apart_as_rarely_as_the_level_says(draw):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(REPEATS):
        rows = getattr(rng, draw)((25, 4))
        found += energy_p_value(rows[:10], rows[10:], rng) <= LEVEL
    assert found <= binom.isf(0.001, REPEATS, LEVEL)


@pytest.mark.parametrize("change", [lambda rows: rows + 1.5, lambda rows: rows * 4])
def test_another_place_or_spread_is_found(change):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((30, 5)), rng.standard_normal((30, 5))
    assert energy_p_value(first, change(second), rng) < 0.001
    assert energy_p_value(first, second, rng) > LEVEL


def test_no_p_value_is_below_what_the_permutations_resolve():
    rng = np.random.default_rng(0)
    far = rng.standard_normal((20, 2)) + 100
    assert energy_p_value(rng.standard_normal((20, 2)), far, rng) == 1 / (PERMUTATIONS + 1)


@pytest.mark.usefixtures("few_permutations")
def test_rows_that_are_all_equal_say_nothing():
    assert energy_p_value(np.ones((12, 3)), np.ones((15, 3)), np.random.default_rng(0)) == 1


@given(
    arrays(np.float64, (7, 2), elements=st.integers(-5, 5)),
    st.lists(st.booleans(), min_size=7, max_size=7).filter(lambda own: 0 < sum(own) < 7),
)
def test_the_statistic_is_that_of_its_definition(rows, is_first):
    own = np.array(is_first)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)

    def mean(one, other):
        return distances[np.ix_(one, other)].mean()

    expected = 2 * mean(own, ~own) - mean(own, own) - mean(~own, ~own)
    found = two_sample._energy(distances, own[None].astype(float))
    assert found == pytest.approx([expected], abs=1e-9)


@pytest.mark.usefixtures("few_permutations")
def test_units_of_columns_change_nothing():
    rows = np.random.default_rng(0).standard_normal((24, 3))
    scaled = rows * [1e-3, 1.0, 1e4]
    p_values = {
        energy_p_value(each[:12], each[12:], np.random.default_rng(1)) for each in (rows, scaled)
    }
    assert len(p_values) == 1
