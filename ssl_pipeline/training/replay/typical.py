"""Typical subjects of earlier cohorts: those nearest to the centres of clusters of embeddings."""

from typing import Literal

import numpy as np
from pydantic import Field

from ssl_pipeline.monitoring.clusters import cluster_embeddings
from ssl_pipeline.training.replay.choice import Embeddings, ReplayChoice, Subjects


class TypicalReplay(ReplayChoice):
    """Of each of as many clusters as subjects are chosen, the one nearest to its centre.

    As the buffer of MedCoSS (Ye et al. 2024, arXiv:2311.17597), which takes 5 scans a cluster.
    """

    name: Literal["typical"] = "typical"
    subjects: float = Field(
        0.25, gt=0, le=1, description="share of the earlier subjects that replay draws from"
    )

    def choose(self, n: int, embeddings: Embeddings, rng: np.random.Generator) -> Subjects:
        """The chosen ones of n subjects."""
        count = self.count(n)
        if count == n:
            return np.arange(n)
        cluster, distance = cluster_embeddings(embeddings(), count, int(rng.integers(2**31)))
        order = np.lexsort((distance, cluster))
        first = np.unique(cluster[order], return_index=True)[1]
        return np.sort(order[first])
