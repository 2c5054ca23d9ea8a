"""What probing and fine-tuning of regions share: what a task has, and what is predicted of it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.baselines.pixels_pca import pixel_features
from ssl_pipeline.evaluation.cells import Cell
from ssl_pipeline.evaluation.data.crops import CropBatch, StoredVolumes, load_crop_batches
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.probes.folds import N_FOLDS, subject_folds
from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.subject_splits import check_learnable, unscored_note
from ssl_pipeline.evaluation.tasks import CropTask

PIXELS_NOTE = (
    "pixels + PCA: block means of the crop (at most 16 an axis) and their principal components, "
    "fitted on all training crops whether labelled or not."
)

DEFAULT_SETTINGS_NOTE = (
    f"With fewer than {N_FOLDS} labelled subjects, or where one of {N_FOLDS} folds of them lacks a "
    "class, the dials of a probe are usual ones, for they cannot be chosen in folds."
)


class CropCells:
    """Regions of a task, train first, and the predictions of its test regions."""

    def __init__(self, runner: TaskRunner, task: CropTask) -> None:
        self.runner = runner
        found = task.labelled_crops(
            list(runner.subject_split.entries),
            runner.label_maps,
            runner.crop_size,
            runner.context.seed,
        )
        check_learnable(task.title, task.class_names, found)
        self.train_crops = [region for region in found if region.split == "train"]
        self.test_crops = [region for region in found if region.split != "train"]
        if not self.test_crops:
            raise UserError(
                f"Task {task.title!r}: no scored subject shows any of the classes: "
                "check classes against the values in the labels."
            )
        self.n_classes = len(task.class_names)  # 0 where a number is told
        self.targets = np.array([region.target for region in self.train_crops])
        # By place, not by name: folds must not depend on codes.
        place = {
            subject: number for number, subject in enumerate(runner.subject_split.train_subjects)
        }
        self.subject_indices = np.array([place[region.subject] for region in self.train_crops])
        self.classes_by_subject: dict[str, frozenset[int]] = {
            subject: frozenset() for subject in runner.subject_split.train_subjects
        }
        if self.n_classes:
            for region in self.train_crops:
                self.classes_by_subject[region.subject] |= {int(region.target)}
        missing = set(range(self.n_classes)) - {region.target for region in self.test_crops}
        self.notes = unscored_note([task.class_names[index] for index in sorted(missing)])

    def labelled_rows(self, cell: Cell) -> NDArray[np.int64]:
        """Indices into `train` of the regions that a cell may learn from."""
        subjects = set(self.runner.labelled_subjects(cell, self.classes_by_subject))
        return np.flatnonzero([region.subject in subjects for region in self.train_crops])

    def labelled_features(self, cell: Cell, features: NDArray[np.float32]) -> LabelledFeatures:
        """What a cell may learn from features (n, blocks, D) of the training regions."""
        every = LabelledFeatures(features, self.targets, self.subject_indices, self.n_classes)
        return every.select(self.labelled_rows(cell))

    def fold_notes(self, cells: Iterable[Cell]) -> tuple[str, ...]:
        """What to say where the dials of a cell's probe cannot be chosen in folds."""
        drawn = {(cell.subjects, cell.seed): cell for cell in cells}
        return () if all(map(self._has_folds, drawn.values())) else (DEFAULT_SETTINGS_NOTE,)

    def _has_folds(self, cell: Cell) -> bool:
        """Whether there are folds of those that a cell learns from."""
        rows = self.labelled_rows(cell)
        shown = len(np.unique(self.targets[rows])) if self.n_classes else 0
        return bool(subject_folds(self.targets[rows], self.subject_indices[rows], shown))

    def crop_batches(
        self, crops: Sequence[LabelledCrop], batch_size: int, volumes: StoredVolumes | None = None
    ) -> Iterator[CropBatch]:
        """The regions' windows, `batch` at a time, of the study's own volumes or of others."""
        return load_crop_batches(
            volumes or self.runner.volumes, crops, self.runner.crop_size, batch_size
        )

    @cached_property
    def pixel_features(self) -> NDArray[np.float32]:
        """Features (n, 1, D) of the baseline, of the training regions and then of the others."""
        images = (
            batch.images for batch in self.crop_batches([*self.train_crops, *self.test_crops], 32)
        )
        fitted_on = np.arange(len(self.train_crops) + len(self.test_crops)) < len(self.train_crops)
        return pixel_features(images, fitted_on, self.runner.context.seed)[:, None]

    def prediction_rows(self, predicted: NDArray[np.float64]) -> list[dict[str, Any]]:
        """The test regions with their probabilities (n, classes), or numbers (n, 1)."""
        told = [[round(float(p), 6) for p in row] for row in predicted]
        return [
            {
                "scan": region.scan,
                "subject": region.subject,
                "start": list(region.start),
                "target": region.target,
                **({"probability": row} if self.n_classes else {"value": row[0]}),
            }
            for region, row in zip(self.test_crops, told, strict=True)
        ]

    def cell_content(
        self, predicted: NDArray[np.float64], began: float, parameters: int, **costs: int | float
    ) -> dict[str, Any]:
        """A cell's file: the test regions with what is predicted, and what that cost."""
        return {
            "predictions": self.prediction_rows(predicted),
            "costs": {
                "trained_parameters": parameters,
                "seconds": round(time.monotonic() - began, 3),
                **{name: round(value, 3) for name, value in costs.items()},
            },
        }
