"""Class or number of a whole scan, predicted from one crop."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.crops import crops_of_volume
from ssl_pipeline.evaluation.data.features import to_tensors
from ssl_pipeline.evaluation.data.labelled_crops import CropBox
from ssl_pipeline.evaluation.finetuning.crop_model import CropModel
from ssl_pipeline.evaluation.prediction.calibration import scale_probabilities
from ssl_pipeline.evaluation.prediction.predictor import Prediction, ScanPredictor
from ssl_pipeline.preprocess.prepare import PreparedVolume, VolumeMeta
from ssl_pipeline.types import Triple

NUMBER = "predicted"  # the column of a number


class CropPredictor(ScanPredictor):
    """Predicts the probabilities of classes, or a number where `class_names` is empty."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        class_names: Sequence[str],
        size: Triple,
        box_of: Callable[[VolumeMeta], CropBox],
    ) -> None:
        super().__init__(networks)
        self.class_names, self.size, self.box_of = class_names, size, box_of

    def predict(self, prepared: PreparedVolume) -> Prediction:
        """Probability of each class, or the number."""
        names = [f"{name} (probability)" for name in self.class_names] or [NUMBER]
        mean = self._mean(prepared)
        entropy = _entropy(mean) if self.class_names else None
        return Prediction(dict(zip(names, mean.tolist(), strict=True)), entropy=entropy)

    def entropy(self, prepared: PreparedVolume) -> float:
        """Entropy of the predicted class, in nats. Raises UserError for a number."""
        if not self.class_names:
            raise UserError(
                "The task's model predicts a number, without probabilities of which an entropy is:"
                " choose scans by another strategy."
            )
        return _entropy(self._mean(prepared))

    def _mean(self, prepared: PreparedVolume) -> NDArray[np.float64]:
        """Mean over the networks of the probabilities (classes,), or of the number (1,)."""
        batch = crops_of_volume(prepared, [self.box_of(prepared.meta)], self.size)
        images, valid, spacing = to_tensors(batch, self.device)
        if not valid.any():
            raise UserError("no measured voxel lies in the crop that this model looks at.")
        with torch.inference_mode():
            rows = [
                self._predict_crop(network, images, valid, spacing).numpy().astype(np.float64)
                for network in self.networks
            ]
        if self.class_names:
            rows = list(map(scale_probabilities, rows, self.temperatures))
        mean: NDArray[np.float64] = np.mean(rows, axis=0)[0]
        return mean

    @staticmethod
    def _predict_crop(
        network: nn.Module, images: Tensor, valid: Tensor, spacing_mm: Tensor
    ) -> Tensor:
        assert isinstance(network, CropModel)
        return network.to_predictions(network(images, valid, spacing_mm)).cpu()

    def outputs(
        self,
        network: nn.Module,
        images: Float[Tensor, "batch z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Tensor:
        """Logits (batch, classes), or numbers (batch, 1) in standard deviations."""
        found: Tensor = network(images, torch.ones_like(images), spacing_mm)
        return found


def _entropy(probabilities: NDArray[np.float64]) -> float:
    return float(scipy.special.entr(probabilities).sum())
