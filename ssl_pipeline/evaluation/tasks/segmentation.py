"""Segmentation: a class for every voxel of a scan."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import EXTERNAL
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL, LabelMap, LabelMaps
from ssl_pipeline.evaluation.metrics.metric import HD95_MM, MEAN_DICE, SURFACE_DICE
from ssl_pipeline.evaluation.metrics.scores import CellScores, Predictions
from ssl_pipeline.evaluation.metrics.segmentation import score_segmentation
from ssl_pipeline.evaluation.tasks.cost import CostInputs, TaskCost
from ssl_pipeline.evaluation.tasks.task import Task, TruthName
from ssl_pipeline.store.catalog import Entry, ScanRow
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.evaluation.prediction.predictor import ScanPredictor
    from ssl_pipeline.evaluation.runner.context import TaskRunner
    from ssl_pipeline.evaluation.runner.finetune_cells import FinetuneCells
    from ssl_pipeline.models.encoder import Encoder

# Of a cell, where the study does not say: on two small structures twice and thrice the steps of
# before gave .01 and .015 of Dice, with 5 labelled subjects and with 99.
MIN_STEPS, STEPS_PER_SUBJECT, MAX_STEPS = 500, 5, 1000
SCAN_BYTES = 300  # a segmented scan in a cell's file
MAP_BYTES = 0.012  # a voxel of a packed map of classes
SCORING_BYTES = 16  # a voxel of truth and prediction, as they are read and compared
# Metrics, and the key of each in the predictions of a scan.
SCAN_SCORES = {MEAN_DICE: "dice", SURFACE_DICE: "surface_dice", HD95_MM: "hd95_mm"}


class Segmentation(Task):
    """Voxels of each class, from label files; value 0, and values not named, are background."""

    METRIC: ClassVar[str] = MEAN_DICE
    SUPPORTED_STAGES: ClassVar[tuple[str, ...]] = ("finetune",)
    HAS_FREE_CROP: ClassVar[bool] = True
    CLASSIFIED: ClassVar[Literal["", "scan", "voxel"]] = "voxel"
    TRUTH_INDEPENDENT_KEYS: ClassVar[frozenset[str]] = Task.TRUTH_INDEPENDENT_KEYS | {
        "external_predictions"
    }

    kind: Literal["segmentation"] = "segmentation"
    label: str = Field(description="name of the labels that the roots declare")
    missing_class_means: Literal["absent", "not annotated"] = Field(
        "absent",
        description="what a class that is missing from a label file means: the scan has none of it "
        "(absent), or it was not annotated, so that its voxels may be labelled background",
    )

    external_predictions: str | None = Field(
        None,
        description="name of labels that another method, such as nnU-Net, predicted of the scored "
        "scans; it gets a row of its own. It must have learned from the training subjects alone",
    )
    tolerance_mm: float = Field(2.0, gt=0, description="tolerance of the surface Dice, in mm")

    @model_validator(mode="after")
    def _values(self) -> "Segmentation":
        if 0 in self.classes or IGNORE_LABEL in self.classes:
            raise ValueError(
                f"classes names 0 or {IGNORE_LABEL}: those are background and 'not annotated'"
            )
        if len(self.classes) >= IGNORE_LABEL:
            raise ValueError(
                f"classes has {len(self.classes)} entries: at most {IGNORE_LABEL - 1} fit"
            )
        return self

    def truth_names(self) -> tuple[TruthName, ...]:
        """The label, and the predictions of another method if there are any."""
        own = TruthName("label", "label", self.label)
        if self.external_predictions is None:
            return (own,)
        external = self.external_predictions
        return own, TruthName("label", "external_predictions", external, is_required=False)

    def usable_entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Scans that have a label file."""
        return self.entries_with(self.entries(scans), self.truth_names()[0])

    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the classes of a scan's voxels depend on."""
        return labels.sha256(entry, self.label)

    def score(self, subjects: Sequence[str], predictions: Predictions) -> CellScores:
        """Metrics of predicted label maps."""
        scores = {  # null becomes nan
            name: np.array([row[key] for row in predictions], np.float64)
            for name, key in SCAN_SCORES.items()
        }
        return score_segmentation(subjects, [row["subject"] for row in predictions], scores)

    def cost(self, inputs: CostInputs, finetune: Finetune, crop: Triple) -> TaskCost:
        """Cost of its cells, beside that of the encoder."""
        return TaskCost(
            probed_crops=0,
            forward_passes=inputs.test_voxels / math.prod(crop) / (1 - finetune.overlap) ** 3,
            prediction_bytes=float(SCAN_BYTES * inputs.test_scans),
            head_flops=float(finetune.decoder.FLOPS * math.prod(crop)),
            map_files=inputs.test_scans,
            map_bytes=MAP_BYTES * inputs.raw_test_voxels,
            label_files=inputs.train_scans,
            label_bytes=sum(inputs.voxels) - inputs.test_voxels,
            scoring_bytes=float(SCORING_BYTES * inputs.largest_test_scan),
        )

    def finetune_cells(self, runner: "TaskRunner") -> "FinetuneCells":
        """Computes the cells of its fine-tuning."""
        from ssl_pipeline.evaluation.runner.segmentation_cells import SegmentationCells

        return SegmentationCells(runner, self)

    def finetune_section(self, finetune: Finetune, labelled_subjects: int) -> Finetune:
        """Convolutions at full resolution cost more a crop; more labels are worth more steps."""
        steps = min(MAX_STEPS, MIN_STEPS + STEPS_PER_SUBJECT * labelled_subjects)
        return finetune.with_defaults(steps=steps, batch_size=2)

    def head_activations(self, finetune: Finetune, crop: Triple) -> float:
        """Activations of the decoder."""
        return float(finetune.decoder.ACTIVATIONS * math.prod(crop))

    def finetune_baselines(self, finetune: Finetune) -> tuple[str, ...]:
        """The predictions of another method, if there are any."""
        return () if self.external_predictions is None else (EXTERNAL,)

    def supported_methods(self, finetune: Finetune) -> tuple[AdaptationMethod, ...]:
        """The adaptation methods that keep the tokens apart."""
        return tuple(method for method in finetune.methods if method.SUPPORTS_SEGMENTATION)

    def build_network(
        self, encoder: "Encoder", method: AdaptationMethod, finetune: Finetune
    ) -> "nn.Module":
        """An encoder with a decoder of voxels."""
        from ssl_pipeline.evaluation.finetuning.build import compose_segmentation_model

        return compose_segmentation_model(encoder, len(self.classes), method, finetune)

    @property
    def can_predict(self) -> bool:
        """Voxels need no label to be predicted."""
        return True

    def predictor(
        self, networks: Sequence["nn.Module"], finetune: Finetune, crop: Triple
    ) -> "ScanPredictor":
        """Predicts the class of every voxel."""
        from ssl_pipeline.evaluation.prediction.segmentation import SegmentationPredictor

        return SegmentationPredictor(networks, self.names_by_value, crop, finetune)

    @property
    def overlay_label(self) -> str | None:
        """The label that is drawn over a scan beside the predicted ones."""
        return self.label

    def class_indices(self, label_map: LabelMap) -> NDArray[np.uint8]:
        """A label map as class indices: 0 background, 1 the first class; 255 is kept."""
        table = np.zeros(np.iinfo(np.int16).max + 1, np.uint8)
        for index, value in enumerate(self.class_values, start=1):
            table[value] = index
        table[IGNORE_LABEL] = IGNORE_LABEL
        return table[label_map]

    def annotated_classes(self, class_indices: NDArray[np.uint8]) -> tuple[bool, ...]:
        """Which classes are annotated in a scan, from its `class_indices`."""
        if self.missing_class_means == "absent":
            return (True,) * len(self.classes)
        found = classes_present(class_indices)
        return tuple(index in found for index in range(1, len(self.classes) + 1))


def classes_present(class_indices: NDArray[np.uint8]) -> frozenset[int]:
    """Classes in class indices (z, y, x), 1 the first; background and 255 are none."""
    found: set[int] = set()
    for plane in class_indices:
        found.update(np.unique(plane).tolist())
    return frozenset(found - {0, IGNORE_LABEL})
