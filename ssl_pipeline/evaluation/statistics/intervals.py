"""Confidence intervals and tests over subjects and seeds, which are crossed random factors.

Every seed scores every subject. A metric is a mean over both, and both are samples: other patients
and other seeds would give another value. So its variance has a component of subjects and one of
seeds, as of cases and readers in multi-reader studies of radiology, and is estimated like theirs
(Dorfman, Berbaum & Metz 1992; Hillis 2007): by an analysis of variance of each subject's jackknife
pseudo-value in each seed.

A bootstrap of subjects and seeds was tried first. In simulated studies of 10 to 100 subjects and
three seeds the coverage of its 95 % intervals was 87 to 100 %: too high where seeds differ by
chance alone and too low where they differ systematically, for three seeds leave little to resample;
that of a bootstrap of subjects alone was 43 to 95 %. Coverage of the method here was 92 to 98 %:
each variance component has Student's factor of its own degrees of freedom, and scores are
transformed to the logistic scale. Hillis's single factor of Satterthwaite's degrees of freedom had
85 to 97 %. `python -m tests.bench.coverage` measures all of them. Below ten subjects no interval is
given.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MIN_SUBJECTS = 10  # subjects below which no interval is given
# From so many subjects on, up to so many: the least coverage of 95 % intervals, in %, in the
# simulations of `tests.bench.coverage`; the largest was 98. More subjects were not simulated.
COVERAGE = ((10, 20, 94), (20, 50, 93), (50, 100, 92))
SMALLEST_P = 1e-12  # below which a p-value is not resolved
Pseudovalues = NDArray[np.float64]  # (seeds, subjects), whose mean is about the metric


def confidence_interval(
    value: float,
    pseudovalues: Pseudovalues,
    confidence: float,
    value_range: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Confidence interval of a metric for the population of subjects and seeds.

    A metric with a `value_range` is transformed to the logistic scale of that range first, so that
    its interval stays within, and is longer on the side where there is room: of areas under ROC
    curves of 10 subjects about .8, symmetric intervals covered the truth in 85 % of simulated
    studies, these in 95 %.
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
    """The note on the coverage of intervals of so many scored subjects."""
    if subjects < MIN_SUBJECTS:
        return (
            f"Too few subjects are scored for an interval, {subjects}: only the spread over seeds "
            "is shown."
        )
    first, last, least = max(row for row in COVERAGE if row[0] <= subjects)
    return (
        f"{subjects} subjects are scored: in simulated studies of {first} to {last} subjects and "
        f"three seeds, 95 % intervals covered the true value in {least} to 98 %."
    )


def half_width(pseudovalues: Pseudovalues, confidence: float) -> float:
    """Half-width of the interval of a metric without a range."""
    components = variance_components(pseudovalues)
    return critical_distance(components, pseudovalues.shape, 1 - confidence)


def p_value(value: float, pseudovalues: Pseudovalues) -> float:
    """Two-sided p-value of a metric without a range, whose expected value may be 0.

    One less the confidence at which its interval just reaches 0: so the interval of 95 % excludes 0
    where p is below .05, and nowhere else. Like the interval, it is of subjects and seeds.
    """
    from scipy.optimize import brentq

    components, shape = variance_components(pseudovalues), pseudovalues.shape

    def excess(log_p: float) -> float:
        return critical_distance(components, shape, math.exp(log_p)) - abs(value)

    if not all(map(math.isfinite, components)):
        return math.nan
    if value == 0:
        return 1.0
    smallest = math.log(SMALLEST_P)
    return SMALLEST_P if excess(smallest) < 0 else math.exp(brentq(excess, smallest, 0.0))


def critical_distance(components: tuple[float, float], shape: tuple[int, ...], p: float) -> float:
    """The distance from 0 of a metric of (seeds, subjects) that has this two-sided p-value.

    `components` are those of `variance_components`.
    """
    (of_subjects, of_seeds), (seeds, subjects) = components, shape
    squared = of_subjects * _t_quantile(p / 2, subjects - 1) ** 2
    if of_seeds:
        squared += of_seeds * _t_quantile(p / 2, seeds - 1) ** 2
    return math.sqrt(squared)


@lru_cache(maxsize=10_000)
def _t_quantile(tail: float, freedom: int) -> float:
    """What Student's t exceeds with the probability `tail`."""
    from scipy.stats import t

    return float(t.isf(tail, freedom))


@np.errstate(over="ignore", invalid="ignore")
def variance_components(pseudovalues: Pseudovalues) -> tuple[float, float]:
    """Variance of a mean over seeds and subjects: components of subjects and of seeds.

    MS(subjects) and MS(seeds) - c MS(both), if that is more than 0, over the number of cells
    (Hillis 2007, doi:10.1002/sim.2532, with seeds for readers, and c = 1). Here c is the
    median of MS(seeds) / MS(both) where seeds do not differ: few seeds seem too similar too often.
    One seed adds nothing. Not finite where pseudo-values are too large to be squared.
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


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's correction for all of them (Holm 1979): the n-th smallest of m is
    multiplied by m - n + 1, and is at least as large as those before it.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[int(index)]))
        adjusted[int(index)] = least
    return adjusted
