"""Intervals by a hierarchical bootstrap: test subjects and seeds are both drawn anew.

All arms of a comparison share the draws, so a difference is paired by subject and by seed. The
interval is the percentile interval. With K seeds a plain draw of seeds shows only (K - 1) / K of
their variance; their deviations are scaled up by sqrt(K / (K - 1)) to make up for it (Rao & Wu
1988). Below ten test subjects a percentile interval is too narrow to be honest, and none is given.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.views.randomness import generator

FEWEST = 10  # test subjects below which no interval is given
Table = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """The draws that all arms share."""

    subjects: NDArray[np.float64]  # (draws, subjects): how often each subject was drawn
    seeds: NDArray[np.int64]  # (draws, seeds): which seeds were drawn


def draw(subjects: int, seeds: int, number: int, seed: int) -> Draws:
    """Draw `number` times from so many subjects and seeds, with replacement."""
    rng = generator(seed, 0, "bootstrap")
    weights = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=number)
    return Draws(weights.astype(np.float64), rng.integers(seeds, size=(number, seeds)))


def metric(total: Table, count: Table) -> NDArray[np.float64]:
    """Mean over classes of total / count, for tables (..., classes).

    Classes without a count are left out; nan where no class has one.
    """
    known = count > 0
    ratio = np.where(known, total / np.where(known, count, 1), 0)
    classes = known.sum(axis=-1)
    value: NDArray[np.float64] = np.where(
        classes > 0, ratio.sum(axis=-1) / np.maximum(classes, 1), np.nan
    )
    return value


def per_seed(total: Table, count: Table) -> NDArray[np.float64]:
    """The metric of each seed (seeds,), from tables (seeds, subjects, classes)."""
    return metric(total.sum(axis=1), count.sum(axis=1))


def resampled(total: Table, count: Table, draws: Draws) -> NDArray[np.float64]:
    """The mean over seeds of the metric for each draw (draws,), from (seeds, subjects, classes).

    Two seeds at least.
    """
    return over_seeds(by_draw(total, count, draws), draws)


def by_draw(total: Table, count: Table, draws: Draws) -> NDArray[np.float64]:
    """The metric of each seed for each draw of subjects (seeds, draws), from tables as above."""
    return metric(
        np.tensordot(total, draws.subjects, (1, 1)).transpose(0, 2, 1),
        np.tensordot(count, draws.subjects, (1, 1)).transpose(0, 2, 1),
    )


def over_seeds(each: NDArray[np.float64], draws: Draws) -> NDArray[np.float64]:
    """The mean over the seeds of each draw (draws,), from what each seed has there."""
    middle, seeds = each.mean(axis=0), len(each)
    drawn = np.take_along_axis(each.T, draws.seeds, axis=1).mean(axis=1)
    value: NDArray[np.float64] = middle + np.sqrt(seeds / (seeds - 1)) * (drawn - middle)
    return value


def interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The percentile interval that holds the share `confidence` of `values`; nan is left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, (tail, 1 - tail))
    return float(low), float(high)
