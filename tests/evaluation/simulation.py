"""Simulated studies of two arms with known true scores.

Subjects differ in difficulty, seeds in accuracy, and each pair of both has an independent error;
`between_seeds` is the standard deviation between seeds, against 1 between subjects.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from ssl_pipeline.evaluation.metrics.classification import auroc
from ssl_pipeline.evaluation.metrics.scores import MetricValue, mean_class_ratio
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate

Simulation = Callable[
    [np.random.Generator, int, int, float, float], tuple[MetricEstimate, MetricEstimate]
]
CLASSES, EACH = 3, 2


def simulate_balanced_accuracy(rng, subjects, seeds, between_seeds, difference):
    """Balanced accuracy of three classes; a subject shows nine in ten of them, twice."""
    hard = rng.normal(0, 1, (subjects, CLASSES))
    shown = (rng.random((subjects, CLASSES)) < 0.9) * float(EACH)
    return tuple(
        MetricEstimate.from_seeds(
            [
                mean_class_ratio(rng.binomial(EACH, expit(p)) * (shown / EACH), shown)
                for p in _logits(rng, 1 + difference * arm + hard, seeds, between_seeds)
            ]
        )
        for arm in (0, 1)
    )


def simulate_dice(rng, subjects, seeds, between_seeds, difference):
    """Mean Dice, skewed: a few subjects are very hard."""
    hard = -rng.gumbel(0, 1, (subjects, 1))
    ones = np.ones((subjects, 1))
    return tuple(
        MetricEstimate.from_seeds(
            [
                mean_class_ratio(expit(p), ones)
                for p in _logits(rng, 1.5 + difference * arm + hard, seeds, between_seeds)
            ]
        )
        for arm in (0, 1)
    )


def simulate_auroc(rng, subjects, seeds, between_seeds, difference):
    """Area under the ROC curve of two classes, one prediction a subject."""
    targets = (np.arange(subjects) % 2).astype(np.int64)
    signal = rng.normal(0, 1, (subjects, 1)) + targets[:, None]
    found: list[list[MetricValue]] = [[], []]
    for arm in (0, 1):
        for logit in _logits(rng, signal + difference * arm * targets[:, None], seeds, 0):
            score = logit[:, 0] + between_seeds * rng.normal() * targets
            probability = np.stack([-score, score], axis=1)
            found[arm].append(auroc(subjects, np.arange(subjects), targets, probability))
    return MetricEstimate.from_seeds(found[0]), MetricEstimate.from_seeds(found[1])


SIMULATIONS: dict[str, Simulation] = {
    "balanced accuracy": simulate_balanced_accuracy,
    "Dice": simulate_dice,
    "AUC": simulate_auroc,
}


def true_scores(
    simulation: Simulation, between_seeds: float, difference: float
) -> tuple[float, float]:
    """Expected scores of both arms."""
    rng = np.random.default_rng(99)
    runs = [simulation(rng, 2000, 50, between_seeds, difference) for _ in range(12)]
    first, second = (float(np.mean([run[arm].per_seed for run in runs])) for arm in (0, 1))
    return first, second


def _logits(rng, hard, seeds, between_seeds):
    for _ in range(seeds):
        yield hard + between_seeds * rng.normal() + rng.normal(0, 0.5, hard.shape)
