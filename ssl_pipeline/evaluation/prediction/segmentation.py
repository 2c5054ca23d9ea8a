"""Segmentation of a prepared volume, and the volume of each class in its scan."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import CropBatch, crops_of_volume
from ssl_pipeline.evaluation.data.labelled_crops import CropBox
from ssl_pipeline.evaluation.data.source_grid import Slab, class_map_on_source_grid
from ssl_pipeline.evaluation.finetuning.largest_components import clean_classes
from ssl_pipeline.evaluation.finetuning.segmentation_training import (
    predict_probabilities,
    summed_entropy,
)
from ssl_pipeline.evaluation.prediction.predictor import Prediction, ScanPredictor
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.training.compute import available_precision
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
        meta, entropies = prepared.meta, []

        def measured() -> Iterator[Slab]:
            for slab in self._probabilities(prepared):
                entropies.append(summed_entropy(slab))
                yield slab

        temperature = float(np.exp(np.log(self.temperatures).mean()))
        found = class_map_on_source_grid(measured(), meta, temperature)
        classes = clean_classes(found.classes, self.section)
        volumes_ml, probabilities = {}, {}
        for index, name in enumerate(self.classes.values(), start=1):
            inside = classes == index
            volumes_ml[f"{name} (ml)"] = meta.source_volume_ml(int(inside.sum()))
            if inside.any():
                mean = float(found.probability[inside].mean(dtype=np.float64))
                probabilities[f"{name} (mean probability)"] = mean
        label_map = np.array([0, *self.classes], np.int16)[classes]
        entropy = sum(entropies) / math.prod(meta.shape)
        return Prediction(volumes_ml | probabilities, label_map, entropy)

    def entropy(self, prepared: PreparedVolume) -> float:
        """Mean entropy over the voxels of the stored grid, in nats; background is a class too.

        Of probabilities as the networks give them, before calibration.
        """
        entropies = map(summed_entropy, self._probabilities(prepared))
        return sum(entropies) / math.prod(prepared.meta.shape)

    def _probabilities(self, prepared: PreparedVolume) -> Iterator[Slab]:
        def crops_at(starts: Sequence[Triple]) -> CropBatch:
            return crops_of_volume(prepared, [CropBox(at, self.size) for at in starts], self.size)

        device = torch.device(self.device).type
        precision = available_precision(self.section.precision, device)
        section = self.section.model_copy(update={"precision": precision})
        return predict_probabilities(
            self.networks, prepared.meta.shape, crops_at, self.size, section
        )

    def outputs(
        self,
        network: nn.Module,
        images: Float[Tensor, "batch z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Tensor:
        """Logits (batch, classes, z, y, x), background first."""
        found: Tensor = network(images, spacing_mm)
        return found
