"""k nearest neighbours by cosine, votes weighted by exp(similarity / temperature).

k = 20 and a temperature of 0.07 are what the literature reports (Wu et al. 2018, DINO). Cosines are
taken about the mean of the labelled features: pooled tokens share a large common part that would
make every pair look alike, and with a handful of labels all of them vote.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.evaluation.probes.fitted import Fitted
from ssl_pipeline.section import Section


class Knn(Section):
    """Vote of the nearest labelled features."""

    TITLE: ClassVar[str] = "kNN"

    SECONDS: ClassVar[float] = 0.02  # of a fit
    deepest: ClassVar[int] = 1  # of the last blocks, what it reads

    name: Literal["knn"] = "knn"
    neighbours: int = Field(default=20, ge=1, description="labelled features that vote, at most")
    temperature: float = Field(default=0.07, gt=0, description="how fast votes fade with distance")

    def fit(
        self,
        train: NDArray[np.float32],
        targets: NDArray[Any],
        subjects: NDArray[np.int64],
        n_classes: int,
        seed: int,
    ) -> Fitted:
        """Learn from `train` (n, blocks, D) and `targets` (n,), rows of `subjects` (n,).

        What comes back maps features (m, blocks, D) to probabilities (m, n_classes); without
        classes, to numbers (m, 1). Numbers are means of the neighbours'.
        """
        middle = train[:, 0].mean(axis=0, keepdims=True)
        known = unit(train[:, 0] - middle)
        truth = np.eye(n_classes)[targets] if n_classes else targets[:, None]
        k = min(self.neighbours, len(train))

        def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
            similarity = unit(test[:, 0] - middle) @ known.T
            nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
            near = np.take_along_axis(similarity, nearest, axis=1)
            votes = np.exp((near - near[:, :1]) / self.temperature)
            shares = votes / votes.sum(axis=1, keepdims=True)
            mean: NDArray[np.float64] = np.einsum("mk,mkc->mc", shares, truth[nearest])
            return mean

        return predict

    def parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters: none, for neighbours are looked up."""
        return 0


def unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays one."""
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(
        np.linalg.norm(wide, axis=1, keepdims=True), 1e-12
    )
    return unit
