"""Estimates of metrics over seeds: mean, interval, and the difference from another estimate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics.scores import MetricValue
from ssl_pipeline.evaluation.statistics.intervals import (
    MIN_SUBJECTS,
    Pseudovalues,
    confidence_interval,
    permutation_p_value,
)


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

    def mean_and_interval(
        self, confidence: float, value_range: tuple[float, float] | None = None
    ) -> dict[str, Any]:
        """Mean and interval as results hold them; null for an interval of too few subjects."""
        low, high = (math.nan, math.nan)
        if self.pseudovalues.shape[1] >= MIN_SUBJECTS:
            low, high = confidence_interval(
                float(self.per_seed.mean()), self.pseudovalues, confidence, value_range
            )
        return {
            "mean": to_json_number(self.per_seed.mean()),
            "low": to_json_number(low),
            "high": to_json_number(high),
        }

    def seed_spread(self) -> dict[str, Any]:
        """Value of each seed, and their standard deviation, as results hold them."""
        deviation = self.per_seed.std(ddof=1) if len(self.per_seed) > 1 else math.nan
        per_seed = [to_json_number(value) for value in self.per_seed]
        return {"sd_seeds": to_json_number(float(deviation)), "per_seed": per_seed}

    def difference(self, other: "MetricEstimate", confidence: float, seed: int) -> dict[str, Any]:
        """The difference, paired by subject and seed, with the p-value of a permutation test."""
        delta = MetricEstimate(
            self.per_seed - other.per_seed, self.pseudovalues - other.pseudovalues
        )
        enough = (
            self.pseudovalues.shape[1] >= MIN_SUBJECTS and not np.isnan(delta.pseudovalues).any()
        )
        p = permutation_p_value(self.pseudovalues, other.pseudovalues, seed) if enough else math.nan
        return delta.mean_and_interval(confidence) | {"p": to_json_number(p)}


def to_json_number(value: float) -> float | None:
    """A value for JSON: six digits, and null where it is not defined."""
    return None if math.isnan(value) else round(float(value), 6)
