"""Base class of strategies that choose which scans to label next, and what they choose from.

What helps depends on the task, and often nothing beats chance: over 24 settings of 3D segmentation
none of the common strategies was reliably better than random scans (nnActive, arXiv:2511.19183), so
`random` is the default.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.config.section import Section

Rows = NDArray[np.int64]  # indices (m,) into the scans of a pool


@dataclass(frozen=True)
class LabelPool:
    """The scans of a task that are labelled, or may be: n of them.

    `features` and `entropy` measure the scans of some rows, and are called if they are needed.
    """

    strata: Sequence[str]  # (n,), the root and site of each scan
    is_labelled: NDArray[np.bool_]  # (n,)
    features: Callable[[Rows], NDArray[np.float64]]  # (m, dim), of the frozen encoder
    entropy: Callable[[Rows], NDArray[np.float64]]  # (m,), of the task's model, in nats

    @property
    def unlabelled(self) -> Rows:
        """The scans that may be chosen."""
        return np.flatnonzero(~self.is_labelled)


class LabelStrategy(Section, ABC):
    """Base class of all strategies."""

    TITLE: ClassVar[str]

    @abstractmethod
    def choose(self, pool: LabelPool, count: int, rng: np.random.Generator) -> Rows:
        """The rows of `count` scans without a label, the first to be labelled first.

        There must be so many. The same pool and state of `rng` give the same rows.
        """
