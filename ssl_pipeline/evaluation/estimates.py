"""A figure over seeds, with what is told of it: mean, interval, and the difference from another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.metrics import Measured
from ssl_pipeline.evaluation.statistics import FEWEST, Parts, interval, p_value


@dataclass(frozen=True)
class Estimate:
    """One metric of one row of a table."""

    per_seed: NDArray[np.float64]  # (seeds,)
    parts: Parts  # (seeds, subjects)

    @classmethod
    def of(cls, seeds: Sequence[Measured]) -> "Estimate":
        """From what each seed measured."""
        values = np.array([seed.value for seed in seeds])
        return cls(values, np.stack([seed.parts for seed in seeds]))

    @classmethod
    def averaged(cls, seeds: Sequence[Sequence[Measured]]) -> "Estimate":
        """From several measurements a seed, which have so much in common that they are no seeds."""
        values = np.array([np.mean([each.value for each in seed]) for seed in seeds])
        parts = [np.mean([each.parts for each in seed], axis=0) for seed in seeds]
        return cls(values, np.stack(parts))

    def told(self, confidence: float, limits: tuple[float, float] | None = None) -> dict[str, Any]:
        """Mean and interval as results hold them; no interval for too few subjects."""
        low, high = (math.nan, math.nan)
        if self.parts.shape[1] >= FEWEST:
            low, high = interval(float(self.per_seed.mean()), self.parts, confidence, limits)
        return {"mean": number(self.per_seed.mean()), "low": number(low), "high": number(high)}

    def spread(self) -> dict[str, Any]:
        """What each seed had, and their standard deviation, as results hold them."""
        deviation = self.per_seed.std(ddof=1) if len(self.per_seed) > 1 else math.nan
        per_seed = [number(value) for value in self.per_seed]
        return {"sd_seeds": number(float(deviation)), "per_seed": per_seed}

    def less(self, other: "Estimate", confidence: float, seed: int) -> dict[str, Any]:
        """The difference, paired by subject and seed, with the p-value of a permutation test."""
        apart = Estimate(self.per_seed - other.per_seed, self.parts - other.parts)
        enough = self.parts.shape[1] >= FEWEST and not np.isnan(apart.parts).any()
        p = p_value(self.parts, other.parts, seed) if enough else math.nan
        return apart.told(confidence) | {"p": number(p)}


def number(value: float) -> float | None:
    """As JSON can say it: six digits, and nothing where a figure is not defined."""
    return None if math.isnan(value) else round(float(value), 6)
