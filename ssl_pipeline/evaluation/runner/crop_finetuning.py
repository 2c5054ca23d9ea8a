"""Fine-tuning cells of a task of crops: train on labelled crops, and predict the test crops."""

import time
from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ssl_pipeline.evaluation.baselines.resnet import SmallResNet
from ssl_pipeline.evaluation.cells import PIXELS, Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.finetuning.crop_model import (
    CropModel,
    EncoderCropModel,
    predict_crops,
    train_crop_model,
)
from ssl_pipeline.evaluation.finetuning.optimizer import (
    count_trained_parameters,
    fixed_seed,
)
from ssl_pipeline.evaluation.prediction.calibration import Probabilities
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.crop_cells import PIXELS_NOTE, CropCells
from ssl_pipeline.evaluation.runner.finetune_cells import FinetuneCells, SavedNetwork
from ssl_pipeline.evaluation.runner.networks import (
    build_crop_model,
    load_network,
    save_network,
    training_settings,
)
from ssl_pipeline.evaluation.tasks.crop_task import CropTask
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.store.catalog import Entry

PIXELS_PROBE_NOTE = "Beside fine-tuning, pixels + PCA are evaluated by a linear probe."
RESNET_NOTE = "small ResNet: trained from scratch with the same crops and steps."


class CropFinetuneCells(FinetuneCells):
    """Computes the fine-tuning cells of a task of crops."""

    def __init__(self, runner: TaskRunner, task: CropTask) -> None:
        self.runner, self.task = runner, task

    @cached_property
    def crops(self) -> CropCells:
        """The labelled crops."""
        return CropCells(self.runner, self.task)

    def notes(self, finetune: Finetune, cells: Collection[Cell]) -> tuple[str, ...]:
        """Notes on the baselines, on classes that nobody shows, and on probes without folds."""
        resnet = (RESNET_NOTE,) if finetune.resnet_baseline else ()
        probe = self.runner.context.baseline_probe
        fold_notes = self.crops.fold_notes(
            (cell, probe) for cell in cells if cell.initialization == PIXELS
        )
        return (PIXELS_NOTE, PIXELS_PROBE_NOTE, *resnet, *self.crops.notes, *fold_notes)

    def baseline_hash(self, name: str) -> str:
        """Hash of the linear probe of pixels."""
        if name != PIXELS:
            return ""
        return sha256_json(self.runner.context.baseline_probe.model_dump(mode="json"))

    def compute(self, cell: Cell, section: Finetune) -> dict[str, Any]:
        """Content of a cell's file."""
        if cell.initialization == PIXELS:
            return self._probe_pixels(cell)
        started, out = time.monotonic(), self.runner.context.out
        model, costs = self._train(cell, section)
        predicted = predict_crops(
            model,
            self.crops.crop_batches(self.crops.test_crops, section.batch_size),
            self.runner.context.device,
        )
        content = self.crops.cell_content(predicted, started, **costs)
        if section.keep_networks != "none":
            content["files"] = [save_network(model, cell, out)]
        return content

    def predict(self, network: SavedNetwork, volumes: StoredVolumes) -> list[dict[str, Any]]:
        """Predictions of a saved network for the test crops."""
        device = self.runner.context.device
        built = build_crop_model(self.runner, network.cell, network.method)
        model = load_network(built, network).to(device)
        batches = self.crops.crop_batches(
            self.crops.test_crops, network.finetune.batch_size, volumes
        )
        return self.crops.prediction_rows(predict_crops(model, batches, device))

    def class_probabilities(
        self, network: nn.Module, section: Finetune, entry: Entry
    ) -> tuple[Probabilities, NDArray[np.int64]]:
        """Probabilities of the classes of a scan, and its class, by index."""
        predictor = self.task.predictor([network], section, self.runner.crop_size)
        stored = PreparedVolume(self.runner.context.reader.read_volume(entry.id), entry.meta)
        row = list(predictor.predict(stored).values.values())
        return np.array([row]), np.array([self.task.scan_class(entry)], np.int64)

    def _train(self, cell: Cell, section: Finetune) -> tuple[CropModel, dict[str, int]]:
        """A trained model, whose method has merged, and its cost."""
        method = next(iter(section.methods), None)
        labelled = [self.crops.train_crops[index] for index in self.crops.labelled_rows(cell)]
        settings = training_settings(self.runner, cell, section, method)
        with fixed_seed(settings.seed, settings.device):
            model = (
                build_crop_model(self.runner, cell, method)
                if method
                else SmallResNet(self.crops.n_classes)
            )
            memory = train_crop_model(model, self.runner.volumes, labelled, settings)
        costs = {"parameters": count_trained_parameters(model), "memory_bytes": memory}
        if isinstance(model, EncoderCropModel) and method:
            method.merge(model.encoder)
        return model, costs

    def _probe_pixels(self, cell: Cell) -> dict[str, Any]:
        """Content of the file of a linear probe of pixels + PCA."""
        started, method = time.monotonic(), self.runner.context.baseline_probe
        features = self.crops.pixel_features
        n_train = len(self.crops.train_crops)
        fitted = method.fit(self.crops.labelled_features(cell, features[:n_train]), cell.seed)
        parameters = method.count_parameters(features.shape[-1], self.crops.n_classes)
        return self.crops.cell_content(fitted(features[n_train:]), started, parameters)
