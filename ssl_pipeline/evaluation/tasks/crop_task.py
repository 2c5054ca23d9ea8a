"""Base classes of tasks of crops: a class or a number of each labelled crop."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import model_validator

from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import RESNET
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.metrics.classification import score_classification
from ssl_pipeline.evaluation.metrics.metric import BALANCED_ACCURACY
from ssl_pipeline.evaluation.metrics.scores import CellScores, Predictions
from ssl_pipeline.evaluation.tasks.cost import CostInputs, TaskCost
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.types import Triple

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.evaluation.runner.context import TaskRunner
    from ssl_pipeline.evaluation.runner.crop_cells import CropCells
    from ssl_pipeline.evaluation.runner.finetune_cells import FinetuneCells
    from ssl_pipeline.models.encoder import Encoder

CROP_BYTES, CLASS_BYTES = 130, 18  # a prediction in a cell's file, and each class's share of it


class CropTask(Task):
    """A task whose truth is a class or a number of each labelled crop."""

    SUPPORTED_STAGES: ClassVar[tuple[str, ...]] = ("probe", "finetune")

    @abstractmethod
    def labelled_crops(
        self, entries: list[Entry], labels: LabelMaps, size: Triple, seed: int
    ) -> list[LabelledCrop]:
        """Crops of scans with their classes or numbers; they may reach out of the volume."""

    @property
    def crops_per_scan(self) -> int:
        """Labelled crops of a scan that shows every class."""
        return 1

    def crop_note(self, entries: Sequence[Entry], size: Triple) -> str:
        """What results say of where the crops of `size` voxels lie; may be empty."""
        return ""

    def cost(self, inputs: CostInputs, finetune: Finetune, crop: Triple) -> TaskCost:
        """Cost of its cells, beside that of the encoder."""
        scored = inputs.test_scans * self.crops_per_scan
        return TaskCost(
            probed_crops=(inputs.train_scans + inputs.test_scans) * self.crops_per_scan,
            forward_passes=float(scored),
            prediction_bytes=float(scored * (CROP_BYTES + CLASS_BYTES * len(self.classes))),
        )

    def probe_cells(self, runner: "TaskRunner") -> "CropCells":
        """The labelled crops that probes learn from and are scored on."""
        from ssl_pipeline.evaluation.runner.crop_cells import CropCells

        return CropCells(runner, self)

    def finetune_cells(self, runner: "TaskRunner") -> "FinetuneCells":
        """Computes the cells of its fine-tuning."""
        from ssl_pipeline.evaluation.runner.crop_finetuning import CropFinetuneCells

        return CropFinetuneCells(runner, self)

    def finetune_baselines(self, finetune: Finetune) -> tuple[str, ...]:
        """A small ResNet from scratch, if it is wanted."""
        return (RESNET,) if finetune.resnet_baseline else ()

    def build_network(
        self, encoder: "Encoder", method: AdaptationMethod, finetune: Finetune
    ) -> "nn.Module":
        """An encoder with a head of classes, or of a number."""
        from ssl_pipeline.evaluation.finetuning.build import compose_crop_model

        return compose_crop_model(encoder, len(self.class_names), method)


class CropClassTask(CropTask):
    """A task whose truth is a class of each labelled crop."""

    METRIC: ClassVar[str] = BALANCED_ACCURACY
    MIN_CLASSES: ClassVar[int] = 2

    @model_validator(mode="after")
    def _has_two_classes(self) -> "CropClassTask":
        if len(self.classes) < self.MIN_CLASSES:
            raise ValueError("classes has fewer than two entries: name at least two")
        return self

    def score(self, subjects: Sequence[str], predictions: Predictions) -> CellScores:
        """Metrics of predicted probabilities."""
        return score_classification(
            subjects,
            [row["subject"] for row in predictions],
            np.array([row["target"] for row in predictions]),
            np.array([row["probability"] for row in predictions]),
        )
