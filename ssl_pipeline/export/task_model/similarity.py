"""Whether a scan is like those that a model was trained on, by features of the model's encoder."""

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.robustness.feature_analysis import NEIGHBOUR_RANK, neighbour_distance

MIN_SCANS = 2 * NEIGHBOUR_RANK  # with fewer, distances say nothing of how they spread
MAX_SCANS = 200  # whose features are kept
COVERED_SHARE = 0.95  # of training scans, each against the others, that are not unlike

FeatureRows = NDArray[np.float32]  # (scans, dim)


def unlike_distance(features: FeatureRows) -> float | None:
    """The distance beyond which a scan is unlike the training scans; None where they are few."""
    if len(features) < MIN_SCANS:
        return None
    every = np.arange(len(features))
    own = [neighbour_distance(features[every != row], features[row : row + 1])[0] for row in every]
    return float(np.quantile(own, COVERED_SHARE))


def distance(features: FeatureRows, vector: NDArray[np.float32]) -> float:
    """Distance of a scan's vector (dim,) to its tenth nearest training scan; 0 to 2."""
    return float(neighbour_distance(features, vector[None])[0])
