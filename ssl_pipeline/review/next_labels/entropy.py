"""Scans of which the task's model is least certain."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.review.next_labels.strategy import LabelPool, LabelStrategy, Rows


class Entropy(LabelStrategy):
    """The largest mean predictive entropy (Settles 2009, sec. 3.1).

    It asks for similar scans again and again where the model errs on one kind.
    """

    TITLE: ClassVar[str] = "of which the task's model is least certain"

    name: Literal["entropy"] = "entropy"

    def choose(self, pool: LabelPool, count: int, rng: np.random.Generator) -> Rows:
        """The rows of `count` scans without a label, the least certain first."""
        rows = pool.unlabelled
        return rows[np.argsort(-pool.entropy(rows), kind="stable")[:count]]
