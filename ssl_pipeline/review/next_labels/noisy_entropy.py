"""Uncertain scans with noise, which falls as labels come: a mixture of `random` and `entropy`."""

from typing import ClassVar, Literal

import numpy as np

from ssl_pipeline.review.next_labels.strategy import LabelPool, LabelStrategy, Rows
from ssl_pipeline.review.next_labels.stratified import in_proportion

LABELS = 8  # labelled scans with which a scan is drawn in proportion to its entropy
LEAST_ENTROPY = 1e-12  # nats


class NoisyEntropy(LabelStrategy):
    """Scans drawn with chances in proportion to a power of their entropy, by root and site.

    Power acquisition (Kirsch et al. 2023, arXiv:2106.12059) in strata, with a power that rises with
    the number of labels, in the manner of ClaSP PE (arXiv:2601.13677): near chance while the model
    knows little, near the least certain once it knows much. ClaSP PE itself draws patches, by their
    predicted classes.
    """

    TITLE: ClassVar[str] = "by chance at first, and the less certain the more labels there are"

    name: Literal["noisy_entropy"] = "noisy_entropy"

    def choose(self, pool: LabelPool, count: int, rng: np.random.Generator) -> Rows:
        """The rows of `count` scans without a label."""
        rows, power = pool.unlabelled, pool.is_labelled.sum() / LABELS
        # The largest of these sums are a draw without replacement (Gumbel top-k).
        sums = power * np.log(np.maximum(pool.entropy(rows), LEAST_ENTROPY)) + rng.gumbel(
            size=len(rows)
        )
        return in_proportion(rows[np.argsort(-sums, kind="stable")], pool, rng)[:count]
