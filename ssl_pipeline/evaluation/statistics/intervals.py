"""Intervals and tests over subjects and seeds, which are crossed: every seed scores every subject.

A figure is a mean over both, and both are samples: other patients and other seeds would give
another one. So its variance has a part of subjects and a part of seeds, as of cases and readers in
the studies of radiology, and is estimated like theirs (Dorfman, Berbaum & Metz 1992; Hillis 2007):
by an analysis of variance of each subject's part in the figure, its jackknife pseudo-value, in each
seed.

A bootstrap of subjects and seeds was tried first. In simulated studies of 10 to 100 subjects and
three seeds its 95 % intervals held the truth in 87 to 100 %, too often where seeds differ by
accident alone and too seldom where they differ in earnest, for three seeds have little to be drawn
from; a bootstrap of subjects alone held it in 43 to 95 %. What is here held it in 92 to 98 %: each
part of the variance counts with Student's factor of its own degrees of freedom, and scores are
taken to the logistic scale. Hillis's single factor of Satterthwaite's degrees of freedom held it in
85 to 97 %. `python -m tests.bench.coverage` has them all. Below ten subjects no interval is given.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MIN_SUBJECTS = 10  # subjects below which no interval is given
# From so many subjects on, up to so many: the least of 95 % intervals, in %, that held the truth in
# a setting of `tests.bench.coverage`; the most was 98. Beyond, nobody has simulated them.
COVERAGE = ((10, 20, 94), (20, 50, 93), (50, 100, 92))
# Draws of a test, or all that there are; more where a p-value is so small that the correction for
# hundreds of comparisons would have nothing to tell apart.
PERMUTATIONS, SMALL_P, MORE_PERMUTATIONS = 4999, 0.01, 49_999
Pseudovalues = NDArray[
    np.float64
]  # (seeds, subjects): pseudo-values, whose mean is about the figure


def confidence_interval(
    value: float,
    pseudovalues: Pseudovalues,
    confidence: float,
    value_range: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Where the figure lies that all subjects and seeds would give.

    A figure that has `limits` is taken to their logistic scale first, so that its interval stays
    within, and is longer on the side where there is room: of areas under ROC curves of 10 subjects
    about .8, intervals that were even held the truth in 85 % of simulated studies, these in 95 %.
    """
    half = half_width(pseudovalues, confidence)
    if not value_range or not value_range[0] < value < value_range[1] or half == 0:
        return value - half, value + half
    low, high = value_range
    below, above = (value - low) / (high - low), (high - value) / (high - low)
    odds, factor = below / above, math.exp(half / (high - low) / (below * above))
    least, most = odds / factor, odds * factor
    return low + (high - low) * least / (1 + least), low + (high - low) / (1 + 1 / most)


def coverage_note(subjects: int) -> str:
    """What to say of the intervals of so many scored subjects."""
    if subjects < MIN_SUBJECTS:
        return (
            f"Too few subjects are scored for an interval, {subjects}: only the spread over seeds "
            "is shown."
        )
    first, last, least = max(row for row in COVERAGE if row[0] <= subjects)
    return (
        f"{subjects} subjects are scored: of {first} to {last}, with three seeds, intervals of "
        f"95 % held the truth in {least} to 98 % of simulated studies."
    )


def half_width(pseudovalues: Pseudovalues, confidence: float) -> float:
    """Half of the interval of a figure that has no limits."""
    from scipy.stats import t

    seeds, subjects = pseudovalues.shape
    of_subjects, of_seeds = variance_components(pseudovalues)
    share = 0.5 + confidence / 2
    squared = of_subjects * float(t.ppf(share, subjects - 1)) ** 2
    if of_seeds:
        squared += of_seeds * float(t.ppf(share, seeds - 1)) ** 2
    return math.sqrt(squared)


def variance_components(pseudovalues: Pseudovalues) -> tuple[float, float]:
    """Of a mean over seeds and subjects: what subjects add to its variance, and what seeds add.

    MS(subjects) and MS(seeds) - c MS(both), if that is more than 0, over the number of cells
    (Hillis 2007, doi:10.1002/sim.2532, with seeds for readers, and c = 1). Here c is what MS(seeds)
    is of MS(both) in half of all studies whose seeds do not differ: few seeds seem too alike too
    often. One seed adds nothing.
    """
    from scipy.stats import chi2

    seeds, subjects = pseudovalues.shape
    mean, of_subject, of_seed = (
        pseudovalues.mean(),
        pseudovalues.mean(axis=0),
        pseudovalues.mean(axis=1),
    )
    by_subject = seeds * float(((of_subject - mean) ** 2).sum()) / (subjects - 1)
    if seeds == 1:
        return by_subject / pseudovalues.size, 0.0
    by_seed = subjects * float(((of_seed - mean) ** 2).sum()) / (seeds - 1)
    left = pseudovalues - of_subject - of_seed[:, None] + mean
    both = float((left**2).sum()) / ((subjects - 1) * (seeds - 1))
    usual = float(chi2.median(seeds - 1)) / (seeds - 1)
    return by_subject / pseudovalues.size, max(by_seed - usual * both, 0.0) / pseudovalues.size


def permutation_p_value(own: Pseudovalues, other: Pseudovalues, seed: int) -> float:
    """Paired permutation test over subjects: how often a difference so large comes by chance.

    Parts are those of two figures (seeds, subjects); seeds are taken as they are, so that this
    tells of the subjects alone.
    """
    p = _permutation_test(own, other, PERMUTATIONS, seed)
    return p if p > SMALL_P else _permutation_test(own, other, MORE_PERMUTATIONS, seed)


def _permutation_test(own: Pseudovalues, other: Pseudovalues, draws: int, seed: int) -> float:
    from scipy.stats import permutation_test

    found = permutation_test(
        (own.mean(axis=0), other.mean(axis=0)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=10_000,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's correction for all of them (Holm 1979): the n-th smallest of m is
    multiplied by m - n + 1, and is at least as large as those before it.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[int(index)]))
        adjusted[int(index)] = least
    return adjusted
