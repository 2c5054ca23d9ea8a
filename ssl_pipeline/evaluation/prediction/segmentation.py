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
        """Label map on the scan's own grid, and volumes in ml."""
        values, crops_at = np.array([0, *self.classes], np.int16), self._crop_reader(prepared)
        label_map = values[
            predict_classes(self.networks, prepared.meta, crops_at, self.size, self.section)
        ]
        volumes_ml = {
            f"{name} (ml)": prepared.meta.source_volume_ml(int((label_map == value).sum()))
            for value, name in self.classes.items()
        }
        return Prediction(volumes_ml, label_map)

    def entropy(self, prepared: PreparedVolume) -> float:
        """Mean entropy over the voxels of the stored grid, in nats; background is a class too."""
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
