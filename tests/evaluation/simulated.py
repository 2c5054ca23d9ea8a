"""Simulated studies of two arms, whose true scores are known.

Subjects differ in how hard they are, seeds in how well they learned, and each meeting of both is an
accident of its own; `between_seeds` says how much seeds differ, against 1 for subjects.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from ssl_pipeline.evaluation.estimates import Estimate
from ssl_pipeline.evaluation.metrics import Measured, area, ratio

World = Callable[[np.random.Generator, int, int, float, float], tuple[Estimate, Estimate]]
CLASSES, EACH = 3, 2


def recalls(rng, subjects, seeds, between_seeds, apart):
    """Balanced accuracy of three classes; a subject shows nine in ten of them, twice."""
    hard = rng.normal(0, 1, (subjects, CLASSES))
    shown = (rng.random((subjects, CLASSES)) < 0.9) * float(EACH)
    return tuple(
        Estimate.of(
            [
                ratio(rng.binomial(EACH, expit(p)) * (shown / EACH), shown)
                for p in _logits(rng, 1 + apart * arm + hard, seeds, between_seeds)
            ]
        )
        for arm in (0, 1)
    )


def dices(rng, subjects, seeds, between_seeds, apart):
    """Mean Dice, skewed: a few subjects are very hard."""
    hard = -rng.gumbel(0, 1, (subjects, 1))
    ones = np.ones((subjects, 1))
    return tuple(
        Estimate.of(
            [
                ratio(expit(p), ones)
                for p in _logits(rng, 1.5 + apart * arm + hard, seeds, between_seeds)
            ]
        )
        for arm in (0, 1)
    )


def areas(rng, subjects, seeds, between_seeds, apart):
    """Area under the ROC curve of two classes, one prediction a subject."""
    targets = (np.arange(subjects) % 2).astype(np.int64)
    seen = rng.normal(0, 1, (subjects, 1)) + targets[:, None]
    found: list[list[Measured]] = [[], []]
    for arm in (0, 1):
        for logit in _logits(rng, seen + apart * arm * targets[:, None], seeds, 0):
            told = logit[:, 0] + between_seeds * rng.normal() * targets
            probability = np.stack([-told, told], axis=1)
            found[arm].append(area(subjects, np.arange(subjects), targets, probability))
    return Estimate.of(found[0]), Estimate.of(found[1])


WORLDS: dict[str, World] = {"balanced accuracy": recalls, "Dice": dices, "AUC": areas}


def truth(world: World, between_seeds: float, apart: float) -> tuple[float, float]:
    """What both arms score in the long run."""
    rng = np.random.default_rng(99)
    runs = [world(rng, 2000, 50, between_seeds, apart) for _ in range(12)]
    first, second = (float(np.mean([run[arm].per_seed for run in runs])) for arm in (0, 1))
    return first, second


def _logits(rng, hard, seeds, between_seeds):
    for _ in range(seeds):
        yield hard + between_seeds * rng.normal() + rng.normal(0, 0.5, hard.shape)
