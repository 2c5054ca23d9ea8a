"""k nearest neighbours by cosine, votes weighted by exp(similarity / temperature).

k and temperature are those of the literature, as in monitoring. Cosines are taken about the mean of
the labelled features: pooled tokens share a large common component that would make every pair
similar, and with a handful of labels all of them vote.
"""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures, PredictFunction, Predictor
from ssl_pipeline.monitoring.config import NEIGHBOURS, TEMPERATURE


class Knn(Predictor):
    """Weighted vote of the nearest labelled features."""

    TITLE: ClassVar[str] = "kNN"
    FIT_SECONDS: ClassVar[float] = 0.02

    name: Literal["knn"] = "knn"
    neighbours: int = Field(NEIGHBOURS, ge=1, description="labelled features that vote, at most")
    temperature: float = Field(TEMPERATURE, gt=0, description="how fast votes fade with distance")

    def learn(self, labelled: LabelledFeatures, seed: int) -> PredictFunction:
        """Store the labelled features; predicted numbers are weighted means of the neighbours'."""
        import torch

        from ssl_pipeline.monitoring.knn import nearest_votes

        train, targets = labelled.features[:, 0], labelled.targets
        middle = train.mean(axis=0, keepdims=True)
        rows = unit_rows(train - middle)
        truth = np.eye(labelled.n_classes)[targets] if labelled.n_classes else targets[:, None]

        def predict(test: NDArray[np.float32]) -> NDArray[np.float64]:
            similarity = torch.from_numpy(unit_rows(test[:, 0] - middle) @ rows.T)
            votes, nearest = nearest_votes(similarity, self.neighbours, self.temperature)
            mean: NDArray[np.float64] = np.einsum("mk,mkc->mc", votes, truth[nearest])
            return mean

        return predict

    def count_parameters(self, dim: int, n_classes: int) -> int:
        """Trained parameters: none."""
        return 0


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays one."""
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(
        np.linalg.norm(wide, axis=1, keepdims=True), 1e-12
    )
    return unit
