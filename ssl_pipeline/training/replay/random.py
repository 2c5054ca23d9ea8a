"""Random subjects of earlier cohorts."""

from typing import Literal

import numpy as np

from ssl_pipeline.training.replay.choice import Embeddings, ReplayChoice, Subjects


class RandomReplay(ReplayChoice):
    """Subjects drawn at random, all of them by default."""

    name: Literal["random"] = "random"

    def choose(self, n: int, embeddings: Embeddings, rng: np.random.Generator) -> Subjects:
        """The chosen ones of n subjects."""
        return np.sort(rng.choice(n, self.count(n), replace=False))
