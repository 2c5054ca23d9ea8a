"""Simulated comparisons of two encoders with known true differences, for the gate."""

from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.statistics.gate import Criterion, PairedContrast, decide

CONFIDENCE, SD, MARGIN = 0.95, 0.05, 0.02


def loss(name, found, margin=MARGIN):
    """A task that may lose `margin`."""
    return Criterion(name=name, kind="loss", margin=margin, expected=margin, contrast=found)


def gain(name, found, worth=MARGIN):
    """A task that is to gain `worth`."""
    return Criterion(name=name, kind="gain", margin=0.0, expected=worth, contrast=found)


def simulate(rng, subjects, truth, sd=SD):
    """The contrast of one study of three seeds, which differ by chance alone."""
    values = truth + rng.normal(0, sd, subjects) + rng.normal(0, sd / 5, (3, subjects))
    return PairedContrast.from_estimate(MetricEstimate(values.mean(axis=1), values))


def pilot_criteria(rng, subjects=30):
    """Two tasks to keep and one that gains, in a small study."""
    tasks = [loss(name, simulate(rng, subjects, 0.0)) for name in "ab"]
    return [*tasks, gain("c", simulate(rng, subjects, MARGIN))]


def promoted(rng, subjects, losses, gains, studies):
    """How many studies promote a challenger of these true differences."""
    count = 0
    for _ in range(studies):
        criteria = [
            *(loss(f"loss {n}", simulate(rng, subjects, t)) for n, t in enumerate(losses)),
            *(gain(f"gain {n}", simulate(rng, subjects, t)) for n, t in enumerate(gains)),
        ]
        count += decide(criteria, [], CONFIDENCE).verdict == "promoted"
    return count
