"""Segmentation of a prepared volume, and the volume of each class in its scan."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import CropBatch, crops_of_volume
from ssl_pipeline.evaluation.data.labelled_crops import CropBox
from ssl_pipeline.evaluation.finetuning.segmentation_training import (
    predict_classes,
    predictive_entropy,
)
from ssl_pipeline.evaluation.prediction.predictor import Prediction, ScanPredictor
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.types import Triple


class SegmentationPredictor(ScanPredictor):
    """Predicts the class of every voxel of a scan."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        classes: Mapping[int, str],
        size: Triple,
        section: Finetune,
    ) -> None:
        super().__init__(networks)
        self.classes, self.size, self.section = classes, size, section

    def predict(self, prepared: PreparedVolume) -> Prediction:
        """Label map on the scan's own grid, volumes in ml, and mean probabilities of the classes.

        Of an ensemble, probabilities are scaled by the geometric mean of its temperatures: the
        classes are those without any temperature.
        """
        meta, crops_at = prepared.meta, self._crop_reader(prepared)
        temperature = float(np.exp(np.log(self.temperatures).mean()))
        found = predict_classes(self.networks, meta, crops_at, self.size, self.section, temperature)
        volumes_ml, probabilities = {}, {}
        for index, name in enumerate(self.classes.values(), start=1):
            inside = found.classes == index
            volumes_ml[f"{name} (ml)"] = meta.source_volume_ml(int(inside.sum()))
            if inside.any():
                mean = float(found.probability[inside].mean(dtype=np.float64))
                probabilities[f"{name} (mean probability)"] = mean
        label_map = np.array([0, *self.classes], np.int16)[found.classes]
        return Prediction(volumes_ml | probabilities, label_map)

    def entropy(self, prepared: PreparedVolume) -> float:
        """Mean entropy over the voxels of the stored grid, in nats; background is a class too.

        Of probabilities as the networks give them, before calibration.
        """
        crops_at, shape = self._crop_reader(prepared), prepared.meta.shape
        return predictive_entropy(self.networks, shape, crops_at, self.size, self.section)

    def _crop_reader(self, prepared: PreparedVolume) -> Callable[[Sequence[Triple]], CropBatch]:
        def crops_at(starts: Sequence[Triple]) -> CropBatch:
            return crops_of_volume(prepared, [CropBox(at, self.size) for at in starts], self.size)

        return crops_at

    def outputs(
        self,
        network: nn.Module,
        images: Float[Tensor, "batch z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Tensor:
        """Logits (batch, classes, z, y, x), background first."""
        found: Tensor = network(images, spacing_mm)
        return found
