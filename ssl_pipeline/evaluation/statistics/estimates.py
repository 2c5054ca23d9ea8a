"""Estimates of metrics over seeds: mean, interval, and the difference from another estimate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics.scores import MetricValue
from ssl_pipeline.evaluation.statistics.intervals import (
    MIN_SUBJECTS,
    Pseudovalues,
    confidence_interval,
    p_value,
)
from ssl_pipeline.io.records import RecordPart

Outcome = Literal["better", "worse", "undecided", "no interval"]


class Estimate(RecordPart):
    """A mean with its confidence interval; None where it is not defined, or subjects are few."""

    mean: float | None
    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The confidence interval; None where there were too few subjects for one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class SeedEstimate(Estimate):
    """An estimate with the value of each seed, and their standard deviation."""

    sd_seeds: float | None
    per_seed: tuple[float | None, ...]


class PairedDifference(Estimate):
    """A difference that is paired by subject and seed, with its p-value."""

    p: float | None  # two-sided, of the same variance as the interval

    @property
    def outcome(self) -> Outcome:
        """The outcome that the interval supports: better or worse only if it excludes zero."""
        if self.interval is None:
            return "no interval"
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "undecided"


@dataclass(frozen=True)
class MetricEstimate:
    """One metric of one row of a table."""

    per_seed: NDArray[np.float64]  # (seeds,)
    pseudovalues: Pseudovalues  # (seeds, subjects)

    @classmethod
    def from_seeds(cls, seeds: Sequence[MetricValue]) -> "MetricEstimate":
        """From the metric of each seed."""
        values = np.array([seed.value for seed in seeds])
        return cls(values, np.stack([seed.pseudovalues for seed in seeds]))

    @classmethod
    def from_repeats(cls, seeds: Sequence[Sequence[MetricValue]]) -> "MetricEstimate":
        """From several measurements of each seed, which are averaged: they are not independent."""
        values = np.array([np.mean([each.value for each in seed]) for seed in seeds])
        pseudovalues = [np.mean([each.pseudovalues for each in seed], axis=0) for seed in seeds]
        return cls(values, np.stack(pseudovalues))

    def with_interval(
        self, confidence: float, value_range: tuple[float, float] | None = None
    ) -> Estimate:
        """Mean and confidence interval."""
        low, high = (math.nan, math.nan)
        if self.pseudovalues.shape[1] >= MIN_SUBJECTS:
            low, high = confidence_interval(
                float(self.per_seed.mean()), self.pseudovalues, confidence, value_range
            )
        return Estimate(
            mean=to_json_number(self.per_seed.mean()),
            low=to_json_number(low),
            high=to_json_number(high),
        )

    @np.errstate(over="ignore", invalid="ignore")
    def with_seeds(
        self, confidence: float, value_range: tuple[float, float] | None = None
    ) -> SeedEstimate:
        """Mean and confidence interval, with the value of each seed."""
        deviation = self.per_seed.std(ddof=1) if len(self.per_seed) > 1 else math.nan
        return SeedEstimate(
            **dict(self.with_interval(confidence, value_range)),
            sd_seeds=to_json_number(float(deviation)),
            per_seed=tuple(to_json_number(value) for value in self.per_seed),
        )

    def minus(self, other: "MetricEstimate", factor: float = 1.0) -> "MetricEstimate":
        """Subtract `factor` times the other, paired by subject and seed."""
        return MetricEstimate(
            self.per_seed - factor * other.per_seed,
            self.pseudovalues - factor * other.pseudovalues,
        )

    def difference(self, other: "MetricEstimate", confidence: float) -> PairedDifference:
        """The difference, paired by subject and seed, with its p-value."""
        delta = self.minus(other)
        mean = float(delta.per_seed.mean())
        enough = self.pseudovalues.shape[1] >= MIN_SUBJECTS and math.isfinite(
            mean + delta.pseudovalues.sum()
        )
        p = p_value(mean, delta.pseudovalues) if enough else math.nan
        return PairedDifference(**dict(delta.with_interval(confidence)), p=to_json_number(p))


def to_json_number(value: float) -> float | None:
    """A value for JSON: six digits, and null where it is not defined or not finite."""
    return round(float(value), 6) if math.isfinite(value) else None
