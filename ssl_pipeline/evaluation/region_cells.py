"""What probing and fine-tuning of regions share: what a task has, and what is predicted of it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import Cell
from ssl_pipeline.evaluation.cohort import check_truth, unscored
from ssl_pipeline.evaluation.crops import Crops, Volumes, batches
from ssl_pipeline.evaluation.plan import Plan
from ssl_pipeline.evaluation.probes.folds import FOLDS, folds_of
from ssl_pipeline.evaluation.probes.pixels_pca import baseline
from ssl_pipeline.evaluation.probes.predictor import Labelled
from ssl_pipeline.evaluation.regions import Region
from ssl_pipeline.evaluation.tasks import RegionTask

PIXELS_NOTE = (
    "pixels + PCA: block means of the crop (at most 16 an axis) and their principal components, "
    "fitted on all training crops whether labelled or not."
)

USUAL_NOTE = (
    f"With fewer than {FOLDS} labelled subjects, or where one of {FOLDS} folds of them lacks a "
    "class, the dials of a probe are usual ones, for they cannot be chosen in folds."
)


class RegionCells:
    """Regions of a task, train first, and the predictions of its test regions."""

    def __init__(self, plan: Plan, task: RegionTask) -> None:
        self.plan = plan
        found = task.regions(list(plan.cohort.entries), plan.labels, plan.size, plan.setting.seed)
        check_truth(task.title, task.names, found)
        self.train = [region for region in found if region.split == "train"]
        self.test = [region for region in found if region.split != "train"]
        if not self.test:
            raise UserError(
                f"Task {task.title!r}: no scored subject shows any of the classes: "
                "check classes against the values in the labels."
            )
        self.classes = len(task.names)  # 0 where a number is told
        self.targets = np.array([region.target for region in self.train])
        # By place, not by name: folds must not depend on codes.
        place = {subject: number for number, subject in enumerate(plan.cohort.train)}
        self.subjects = np.array([place[region.subject] for region in self.train])
        self.shows: dict[str, frozenset[int]] = {
            subject: frozenset() for subject in plan.cohort.train
        }
        if self.classes:
            for region in self.train:
                self.shows[region.subject] |= {int(region.target)}
        missing = set(range(self.classes)) - {region.target for region in self.test}
        self.notes = unscored([task.names[index] for index in sorted(missing)])

    def chosen(self, cell: Cell) -> NDArray[np.int64]:
        """Indices into `train` of the regions that a cell may learn from."""
        subjects = set(self.plan.labelled(cell, self.shows))
        return np.flatnonzero([region.subject in subjects for region in self.train])

    def known(self, cell: Cell, features: NDArray[np.float32]) -> Labelled:
        """What a cell may learn from features (n, blocks, D) of the training regions."""
        every = Labelled(features, self.targets, self.subjects, self.classes)
        return every.rows(self.chosen(cell))

    def folded(self, cells: Iterable[Cell]) -> tuple[str, ...]:
        """What to say where the dials of a cell's probe cannot be chosen in folds."""
        drawn = {(cell.subjects, cell.seed): cell for cell in cells}
        return () if all(map(self._folds, drawn.values())) else (USUAL_NOTE,)

    def _folds(self, cell: Cell) -> bool:
        """Whether there are folds of those that a cell learns from."""
        rows = self.chosen(cell)
        shown = len(np.unique(self.targets[rows])) if self.classes else 0
        return bool(folds_of(self.targets[rows], self.subjects[rows], shown))

    def crops(
        self, regions: Sequence[Region], batch: int, volumes: Volumes | None = None
    ) -> Iterator[Crops]:
        """The regions' windows, `batch` at a time, of the study's own volumes or of others."""
        return batches(volumes or self.plan.volumes, regions, self.plan.size, batch)

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """Features (n, 1, D) of the baseline, of the training regions and then of the others."""
        images = (batch.images for batch in self.crops([*self.train, *self.test], 32))
        fitted_on = np.arange(len(self.train) + len(self.test)) < len(self.train)
        return baseline(images, fitted_on, self.plan.setting.seed)[:, None]

    def rows(self, predicted: NDArray[np.float64]) -> list[dict[str, Any]]:
        """The test regions with their probabilities (n, classes), or numbers (n, 1)."""
        told = [[round(float(p), 6) for p in row] for row in predicted]
        return [
            {
                "scan": region.scan,
                "subject": region.subject,
                "start": list(region.start),
                "target": region.target,
                **({"probability": row} if self.classes else {"value": row[0]}),
            }
            for region, row in zip(self.test, told, strict=True)
        ]

    def content(
        self, predicted: NDArray[np.float64], began: float, parameters: int, **costs: int | float
    ) -> dict[str, Any]:
        """A cell's file: the test regions with what is predicted, and what that cost."""
        return {
            "predictions": self.rows(predicted),
            "costs": {
                "trained_parameters": parameters,
                "seconds": round(time.monotonic() - began, 3),
                **{name: round(value, 3) for name, value in costs.items()},
            },
        }
