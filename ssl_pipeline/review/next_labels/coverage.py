"""Scans that cover all others: each time the one that is farthest from every label."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.review.next_labels.strategy import LabelPool, LabelStrategy, Rows


class Coverage(LabelStrategy):
    """Greedy k-centre, the core-set approach of Sener & Savarese 2018 (arXiv:1708.00489).

    Of embeddings it finds what is rare, outliers among it. Without any label, the scan nearest to
    the mean comes first.
    """

    TITLE: ClassVar[str] = "each time the farthest from all that are labelled"

    name: Literal["coverage"] = "coverage"

    def choose(self, pool: LabelPool, count: int, rng: np.random.Generator) -> Rows:
        """The rows of `count` scans without a label."""
        features = pool.features(np.arange(len(pool.is_labelled)))
        chosen: list[int] = []
        if not pool.is_labelled.any():
            chosen.append(int(_distances(features, features.mean(axis=0)).argmin()))
        nearest = np.full(len(features), np.inf)
        for centre in [*np.flatnonzero(pool.is_labelled), *chosen]:
            nearest = np.minimum(nearest, _distances(features, features[centre]))
        nearest[[*np.flatnonzero(pool.is_labelled), *chosen]] = -1  # also where embeddings agree
        while len(chosen) < count:
            chosen.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, _distances(features, features[chosen[-1]]))
            nearest[chosen[-1]] = -1
        return np.array(chosen)


def _distances(features: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (n,) of each row of features (n, dim) from a place (dim,)."""
    found: NDArray[np.float64] = np.linalg.norm(features - place, axis=1)
    return found
