"""Clusters of embeddings, the same from run to run."""

import numpy as np
from numpy.typing import NDArray

STARTS = 4  # of k-means, the best of which counts


def cluster_embeddings(
    features: NDArray[np.float64], n_clusters: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cluster (n,) of each row of features (n, dim), and its distance (n,) from the centre."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums of several threads differ from run to run
        found = KMeans(n_clusters, n_init=STARTS, random_state=seed).fit(features)
    cluster = found.labels_.astype(np.int64)
    return cluster, np.linalg.norm(features - found.cluster_centers_[cluster], axis=1)
