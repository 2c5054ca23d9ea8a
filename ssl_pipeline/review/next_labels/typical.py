"""Typical scans: the one nearest to the centre of each cluster that has no label yet."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.monitoring.clusters import cluster_embeddings
from ssl_pipeline.review.next_labels.strategy import LabelPool, LabelStrategy, Rows


class Typical(LabelStrategy):
    """TypiClust (Hacohen et al. 2022, arXiv:2202.02794): good where few labels are affordable.

    K-means divides all scans into as many clusters as there will be labels; the largest clusters
    without a label come first. Of a cluster the paper takes the scan in the densest place; here it
    is the one nearest to the centre, for clusters of so few scans have no density to speak of.
    """

    TITLE: ClassVar[str] = "the nearest to the centre of each cluster of embeddings"

    name: Literal["typical"] = "typical"

    def choose(self, pool: LabelPool, count: int, rng: np.random.Generator) -> Rows:
        """The rows of `count` scans without a label, those of the largest clusters first."""
        features = pool.features(np.arange(len(pool.is_labelled)))
        n_clusters = int(pool.is_labelled.sum()) + count
        cluster, distance = cluster_embeddings(features, n_clusters, int(rng.integers(2**31)))
        size = np.bincount(cluster, minlength=n_clusters)
        labels = np.bincount(cluster[pool.is_labelled], minlength=n_clusters)
        rows = pool.unlabelled
        before = np.empty(len(rows), np.int64)  # labels of its cluster, when a scan has its turn
        for at in np.argsort(distance[rows], kind="stable"):
            before[at] = labels[cluster[rows[at]]]
            labels[cluster[rows[at]]] += 1
        order = np.lexsort((distance[rows], -size[cluster[rows]], before))
        return rows[order[:count]]
