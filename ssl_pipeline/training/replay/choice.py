"""Base class of the ways to choose the earlier subjects that replay draws from."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.config.section import Section

Embeddings = Callable[[], NDArray[np.float64]]  # (n, dim), of each subject by the earlier encoder
Subjects = NDArray[np.int64]  # indices (m,) of subjects


class ReplayChoice(Section, ABC):
    """A part of the subjects of earlier cohorts."""

    name: str
    subjects: float = Field(
        1.0, gt=0, le=1, description="share of the earlier subjects that replay draws from"
    )

    def count(self, n: int) -> int:
        """How many of n subjects are chosen."""
        return max(1, round(self.subjects * n))

    @abstractmethod
    def choose(self, n: int, embeddings: Embeddings, rng: np.random.Generator) -> Subjects:
        """The chosen ones of n subjects; `embeddings` are computed if they are asked for."""
