"""Random scans, of each root and site as many as its share."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.review.next_labels.strategy import LabelPool, LabelStrategy, Rows


class Stratified(LabelStrategy):
    """Random scans, by root and site; each scan is as likely as any other."""

    TITLE: ClassVar[str] = "by chance, in proportion to roots and sites"

    name: Literal["random"] = "random"

    def choose(self, pool: LabelPool, count: int, rng: np.random.Generator) -> Rows:
        """The rows of `count` scans without a label."""
        return in_proportion(rng.permutation(pool.unlabelled), pool, rng)[:count]


def in_proportion(rows: Rows, pool: LabelPool, rng: np.random.Generator) -> Rows:
    """The rows, ordered so that of any first ones each stratum has its share.

    Systematic sampling: the scans of a stratum, in their order, are spread evenly over the unit
    interval from a random start. So a stratum has its share, but for less than one scan.
    """
    _, stratum = np.unique([pool.strata[row] for row in rows], return_inverse=True)
    place = np.empty(len(rows))
    for own in (np.flatnonzero(stratum == each) for each in np.unique(stratum)):
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return rows[np.argsort(place, kind="stable")]
