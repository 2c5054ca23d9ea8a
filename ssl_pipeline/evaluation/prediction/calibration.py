"""Temperature scaling of a classifier of scans or voxels (Guo et al. 2017, arXiv:1706.04599).

One number makes probabilities as sure as they are right. It is fitted on subjects who were neither
trained on nor scored, and never changes which class is the most probable.
"""

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.evaluation.metrics.classification import calibration_bins, calibration_error

MIN_SUBJECTS = 10  # with fewer the temperature would be that of chance
MAX_TEMPERATURE = 20.0  # and its inverse the least
LEAST_PROBABILITY = 1e-12

Probabilities = NDArray[np.float64]  # (n, classes), each row of sum 1
Bins = tuple[tuple[float, float, int], ...]  # mean confidence, accuracy and number, of each tenth


class Calibration(Section):
    """The temperature of a model, and what it does to the expected calibration error."""

    temperature: float = Field(gt=0, description="above 1 it makes probabilities less sure")
    n_subjects: int = Field(description="subjects of the split val, on whom it was fitted")
    error_before: float = Field(description="calibration error on these subjects without it")
    error_after: float = Field(description="the same with it")
    scored_error_before: float = Field(description="calibration error on the scored subjects")
    scored_error_after: float = Field(description="the same with it")
    scored_bins_before: Bins = Field(
        (),
        description="mean confidence, accuracy and number of each tenth of the predictions of the "
        "scored subjects without it; none in models of earlier versions",
    )
    scored_bins_after: Bins = Field((), description="the same with it")


def fit_temperature(probability: Probabilities, targets: NDArray[np.int64]) -> float:
    """The temperature at which the true classes (n,) are the least surprising."""
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = scale_probabilities(probability, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(scaled[rows, targets], LEAST_PROBABILITY)).mean())

    limit = float(np.log(MAX_TEMPERATURE))
    best = scipy.optimize.minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    return float(np.exp(best.x))


def scale_probabilities(probability: Probabilities, temperature: float) -> Probabilities:
    """Probabilities as a softmax of logits that are divided by the temperature gives them."""
    logits = np.log(np.maximum(probability, LEAST_PROBABILITY)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Probabilities = scaled / scaled.sum(axis=1, keepdims=True)
    return found


def expected_error(probability: Probabilities, targets: NDArray[np.int64]) -> float:
    """Expected calibration error of the most probable class, 0 to 1."""
    return calibration_error(*_hit_and_confidence(probability, targets))


def reliability_bins(probability: Probabilities, targets: NDArray[np.int64]) -> Bins:
    """Confidence in the most probable class beside how often it is right."""
    return tuple(calibration_bins(*_hit_and_confidence(probability, targets)))


def _hit_and_confidence(
    probability: Probabilities, targets: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return probability.argmax(axis=1) == targets, probability.max(axis=1)
