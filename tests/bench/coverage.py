"""Coverage of 95% confidence intervals, ours and those of earlier methods.

`python -m tests.bench.coverage`: 2,000 simulated studies a setting, of three seeds, in which seeds
differ by nothing, or by 0.05 to 0.2 of what subjects do (the logit's standard deviation). Prints
the least and most share over these settings, by metric and number of subjects, for scores and for
differences of two arms; a quarter of an hour.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import t

from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.statistics.intervals import confidence_interval
from tests.evaluation.simulation import SIMULATIONS, true_scores

RUNS, SEED_SDS = 2000, (0.0, 0.05, 0.1, 0.2)
SUBJECTS = (10, 20, 50, 100)
Interval = Callable[[float, np.ndarray, int], tuple[float, float]]


def ours_of_scores(value, parts, run):
    return confidence_interval(value, parts, 0.95, (0.0, 1.0))


def ours(value, parts, run):
    return confidence_interval(value, parts, 0.95)


def satterthwaite(value, parts, run):
    """Hillis 2007: one factor, of Satterthwaite's degrees of freedom."""
    seeds, subjects = parts.shape
    of_subject, of_seed = parts.mean(axis=0), parts.mean(axis=1)
    by_subject, by_seed = seeds * of_subject.var(ddof=1), subjects * of_seed.var(ddof=1)
    left = parts - of_subject - of_seed[:, None] + parts.mean()
    more = max(by_seed - (left**2).sum() / ((subjects - 1) * (seeds - 1)), 0)
    spread = by_subject**2 / (subjects - 1) + (more > 0) * by_seed**2 / (seeds - 1)
    freedom = max((by_subject + more) ** 2 / spread, seeds - 1) if spread else subjects - 1
    half = t.ppf(0.975, freedom) * np.sqrt((by_subject + more) / parts.size)
    return value - half, value + half


def bootstrap_of_both(value, parts, run, draws=500):
    """Subjects and seeds drawn anew; deviations of seeds scaled up by sqrt(S / (S - 1))."""
    rng, (seeds, subjects) = np.random.default_rng(run), parts.shape
    weights = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=draws) / subjects
    each = weights @ parts.T  # (draws, seeds)
    middle = each.mean(axis=1)
    drawn = np.take_along_axis(each, rng.integers(seeds, size=(draws, seeds)), axis=1).mean(axis=1)
    values = middle + np.sqrt(seeds / (seeds - 1)) * (drawn - middle)
    return tuple(value - parts.mean() + np.quantile(values, (0.025, 0.975)))


def bootstrap_of_subjects(value, parts, run, draws=500):
    """Subjects drawn anew, seeds as they are."""
    rng, subjects = np.random.default_rng(run), parts.shape[1]
    weights = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=draws) / subjects
    values = weights @ parts.mean(axis=0)
    return tuple(value - parts.mean() + np.quantile(values, (0.025, 0.975)))


METHODS: dict[str, tuple[Interval, Interval]] = {  # of scores, of differences
    "ours": (ours_of_scores, ours),
    "Satterthwaite": (satterthwaite, satterthwaite),
    "bootstrap of both": (bootstrap_of_both, bootstrap_of_both),
    "bootstrap of subjects": (bootstrap_of_subjects, bootstrap_of_subjects),
}


def coverage(name: str, subjects: int, between_seeds: float) -> np.ndarray:
    """Shares (ways, 2) of studies whose interval holds the truth, of a score and a difference."""
    world = SIMULATIONS[name]
    first, second = true_scores(world, between_seeds, 0.4)
    hits = np.zeros((len(METHODS), 2))
    for run in range(RUNS):
        one, other = world(np.random.default_rng(run), subjects, 3, between_seeds, 0.4)
        apart = MetricEstimate(other.per_seed - one.per_seed, other.pseudovalues - one.pseudovalues)
        for way, intervals in enumerate(METHODS.values()):
            truths = (second, second - first)
            for kind, (own, true) in enumerate(zip((other, apart), truths, strict=True)):
                low, high = intervals[kind](float(own.per_seed.mean()), own.pseudovalues, run)
                hits[way, kind] += low <= true <= high
    return hits / RUNS


def main() -> None:
    print("| metric | subjects | of | " + " | ".join(METHODS) + " |")
    print("|---|---:|---|" + "---:|" * len(METHODS))
    for name in SIMULATIONS:
        for subjects in SUBJECTS:
            found = np.stack([coverage(name, subjects, between) for between in SEED_SDS])
            for kind, word in enumerate(("a score", "a difference")):
                least, most = (100 * bound(found[:, :, kind], axis=0) for bound in (np.min, np.max))
                shown = (f"{a:.1f} to {b:.1f}" for a, b in zip(least, most, strict=True))
                print(f"| {name} | {subjects} | {word} | " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    main()
