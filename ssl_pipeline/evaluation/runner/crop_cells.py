"""Labelled crops of a task and their predictions, shared by probing and fine-tuning."""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.baselines.pixels_pca import pixel_features
from ssl_pipeline.evaluation.cells import Cell
from ssl_pipeline.evaluation.data.crops import CropBatch, StoredVolumes, load_crop_batches
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.probes.folds import N_FOLDS, has_folds
from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures, Predictor
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.subject_splits import check_learnable, unscored_note
from ssl_pipeline.evaluation.tasks.crop_task import CropTask

PIXELS_NOTE = (
    "pixels + PCA: block means of the crop (at most 16 an axis) and their principal components, "
    "fitted on all training crops whether labelled or not."
)

DEFAULT_SETTINGS_NOTE = (
    f"With fewer than {N_FOLDS} labelled subjects (those whose label a model predicted do not "
    f"count), or where one of {N_FOLDS} folds of them lacks a class however they are drawn, a "
    "probe has its default hyperparameters, for they cannot be chosen in folds."
)


class CropCells:
    """Labelled crops of a task, training and test, and the predictions of its test crops."""

    def __init__(self, runner: TaskRunner, task: CropTask) -> None:
        self.runner = runner
        found = task.labelled_crops(
            list(runner.subject_split.entries),
            runner.label_maps,
            runner.crop_size,
            runner.context.seed,
        )
        self.train_crops = [crop for crop in found if crop.split == "train"]
        self.test_crops = [crop for crop in found if crop.split != "train"]
        check_learnable(
            task,
            [crop.target for crop in self.train_crops],
            [crop.target for crop in self.test_crops],
        )
        self.n_classes = len(task.class_names)  # 0 where the target is a number
        self.targets = np.array([crop.target for crop in self.train_crops])
        # By index, not by name: folds must not depend on pseudonyms.
        index_of = {
            subject: index for index, subject in enumerate(runner.subject_split.train_subjects)
        }
        self.subject_indices = np.array([index_of[crop.subject] for crop in self.train_crops])
        predicted = runner.subject_split.predicted_subjects
        self.may_choose = np.array([crop.subject not in predicted for crop in self.train_crops])
        self.classes_by_subject: dict[str, frozenset[int]] = {
            subject: frozenset() for subject in runner.subject_split.train_subjects
        }
        if self.n_classes:
            for crop in self.train_crops:
                self.classes_by_subject[crop.subject] |= {int(crop.target)}
        missing = set(range(self.n_classes)) - {crop.target for crop in self.test_crops}
        note = task.crop_note(runner.subject_split.entries, runner.crop_size)
        self.notes = (
            *((note,) if note else ()),
            *unscored_note([task.class_names[index] for index in sorted(missing)]),
        )

    def labelled_rows(self, cell: Cell) -> NDArray[np.int64]:
        """Indices into `train_crops` of the crops that a cell may learn from."""
        subjects = set(self.runner.labelled_subjects(cell, self.classes_by_subject))
        return np.flatnonzero([crop.subject in subjects for crop in self.train_crops])

    def labelled_features(self, cell: Cell, features: NDArray[np.float32]) -> LabelledFeatures:
        """What a cell may learn from, of features (n, blocks, D) of the training crops."""
        every = LabelledFeatures(
            features, self.targets, self.subject_indices, self.n_classes, self.may_choose
        )
        return every.select(self.labelled_rows(cell))

    def fold_notes(self, cells: Iterable[tuple[Cell, Predictor]]) -> tuple[str, ...]:
        """The note for cells whose probe's hyperparameters cannot be chosen in folds."""
        # Which subjects are labelled depends on their number and the seed alone.
        distinct = {
            (cell.subjects, cell.seed, probe.n_fold_draws): (cell, probe.n_fold_draws)
            for cell, probe in cells
            if probe.n_fold_draws
        }
        can_choose = (self._has_folds(cell, draws) for cell, draws in distinct.values())
        return () if all(can_choose) else (DEFAULT_SETTINGS_NOTE,)

    def _has_folds(self, cell: Cell, draws: int) -> bool:
        """Whether the labelled subjects of a cell can be divided into folds."""
        rows = self.labelled_rows(cell)
        n_present = len(np.unique(self.targets[rows])) if self.n_classes else 0
        rows = rows[self.may_choose[rows]]
        return has_folds(self.targets[rows], self.subject_indices[rows], n_present, draws)

    def crop_batches(
        self, crops: Sequence[LabelledCrop], batch_size: int, volumes: StoredVolumes | None = None
    ) -> Iterator[CropBatch]:
        """Voxels of crops, `batch_size` at a time, of the study's own volumes or of others."""
        return load_crop_batches(
            volumes or self.runner.volumes, crops, self.runner.crop_size, batch_size
        )

    @cached_property
    def pixel_features(self) -> NDArray[np.float32]:
        """Features (n, 1, D) of the baseline, of the training crops and then of the test crops."""
        images = (
            batch.images for batch in self.crop_batches([*self.train_crops, *self.test_crops], 32)
        )
        fitted_on = np.arange(len(self.train_crops) + len(self.test_crops)) < len(self.train_crops)
        return pixel_features(images, fitted_on, self.runner.context.seed)[:, None]

    def prediction_rows(self, predicted: NDArray[np.float64]) -> list[dict[str, Any]]:
        """The test crops with their predicted probabilities (n, classes), or numbers (n, 1).

        Raises FloatingPointError where one of them is not finite: the cell has failed.
        """
        if not np.isfinite(predicted).all():
            raise FloatingPointError("a prediction is not finite, for training diverged")
        rounded = [[round(float(p), 6) for p in row] for row in predicted]
        return [
            {
                "scan": crop.scan,
                "subject": crop.subject,
                "start": list(crop.start),
                "target": crop.target,
                **({"probability": row} if self.n_classes else {"value": row[0]}),
            }
            for crop, row in zip(self.test_crops, rounded, strict=True)
        ]

    def cell_content(
        self, predicted: NDArray[np.float64], started: float, parameters: int, **costs: int | float
    ) -> dict[str, Any]:
        """Content of a cell's file: the predictions of the test crops, and their cost."""
        return {
            "predictions": self.prediction_rows(predicted),
            "costs": {
                "trained_parameters": parameters,
                "seconds": round(time.monotonic() - started, 3),
                **{name: round(value, 3) for name, value in costs.items()},
            },
        }
