"""What a fine-tuned network predicts of a prepared volume; each kind of task has a predictor."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_pipeline.preprocess.prepare import PreparedVolume


@dataclass(frozen=True)
class Prediction:
    """Prediction for one scan.

    `values` are numbers by name: of voxels the volume of each class in ml, and of each that occurs
    their mean probability; else the probability of each class, or the predicted number.
    `label_map` (x, y, z) has the values of the label files on the scan's own grid; None where
    voxels are not predicted. `entropy` is that of `ScanPredictor.entropy`, None of a number.
    """

    values: Mapping[str, float]
    label_map: NDArray[np.int16] | None = None
    entropy: float | None = None


class ScanPredictor(ABC):
    """Predicts with one network, or with the mean of several of one architecture."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.networks = [network.eval() for network in networks]
        self.temperatures = [1.0] * len(self.networks)  # of the probabilities of classes

    @abstractmethod
    def predict(self, prepared: PreparedVolume) -> Prediction:
        """The prediction for a volume; the networks' device computes it."""

    @abstractmethod
    def entropy(self, prepared: PreparedVolume) -> float:
        """Mean entropy of the predicted classes of a volume, in nats.

        Raises UserError where a number is predicted, which has no classes.
        """

    @abstractmethod
    def outputs(
        self,
        network: nn.Module,
        images: Float[Tensor, "batch z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Tensor:
        """What a network gives for crops without missing voxels, before any softmax."""

    @property
    def device(self) -> str:
        """Where the networks compute."""
        return str(next(self.networks[0].parameters()).device)
