"""Regression of a number of a whole scan, from one crop."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL, LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.metrics.metric import R_SQUARED
from ssl_pipeline.evaluation.metrics.regression import score_regression
from ssl_pipeline.evaluation.metrics.scores import CellScores, Predictions
from ssl_pipeline.evaluation.tasks.classes import Classes
from ssl_pipeline.evaluation.tasks.scan_task import ScanTask
from ssl_pipeline.evaluation.tasks.task import TruthName
from ssl_pipeline.io.text import LARGEST_NUMBER, parse_number
from ssl_pipeline.store.catalog import Entry, ScanRow
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.inventory import Scan


class Regression(ScanTask):
    """A number of a scan: a target that the roots or the table declare, or the volume of labels."""

    METRIC: ClassVar[str] = R_SQUARED

    kind: Literal["regression"] = "regression"
    target: str | None = Field(None, description="name of the target that holds the number")
    label: str | None = Field(
        None, description="name of the labels whose volume in ml is the number, in place of target"
    )
    classes: Classes = Field(
        {},
        description="values of the label that are counted, and their names; all above 0 if empty",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Regression":
        if (self.target is None) == (self.label is None):
            raise ValueError("give either target or label: one of them holds the number")
        if self.classes and self.label is None:
            raise ValueError("classes are those of a label, and target is none: leave them out")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: a number has no classes."""
        return ()

    @property
    def truth(self) -> TruthName:
        """The target or the label."""
        if self.target is None:
            return TruthName("label", "label", self.label or "")
        return TruthName("target", "target", self.target)

    def usable_entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Scans that have the label, or whose target is a number; UserError for other words."""
        truth, with_truth = self.truth, super().usable_entries(scans)
        for entry in with_truth if self.target else ():
            if parse_number(entry.targets[truth.name]) is None:
                raise UserError(
                    f"Task {self.title!r}: target {truth.name!r} of scan {entry.id} is "
                    f"{entry.targets[truth.name]!r}, which is no number up to "
                    f"{LARGEST_NUMBER:g}: leave it empty, or correct it."
                )
        return with_truth

    def inventory_targets(self, scan: Scan) -> frozenset[int | float] | None:
        """The number of a usable scan: its target, or 0 where its label shows nothing counted."""
        if self.target:
            return frozenset({self._target_number(scan, self.target)})
        present = scan.label_classes.get(self.label or "")
        if present is None:
            return None
        counted = set(present) & set(self.class_values) if self.classes else set(present)
        return None if counted else frozenset({0.0})

    def labelled_crops(
        self, entries: list[Entry], labels: LabelMaps, size: Triple, seed: int
    ) -> list[LabelledCrop]:
        """One crop for each scan."""
        return [
            self.scan_crop(entry, labels, size, self._value(entry, labels)) for entry in entries
        ]

    def score(self, subjects: Sequence[str], predictions: Predictions) -> CellScores:
        """Metrics of predicted numbers."""
        return score_regression(
            subjects,
            [row["subject"] for row in predictions],
            np.array([row["target"] for row in predictions]),
            np.array([row["value"] for row in predictions]),
        )

    def _value(self, entry: Entry, labels: LabelMaps) -> float:
        if self.target:
            return self._target_number(entry, self.target)
        label_map = labels.load_on_source_grid(entry, self.label or "")
        counted = (label_map > 0) & (label_map != IGNORE_LABEL)
        if self.classes:
            counted = sum((label_map == value for value in self.class_values), start=label_map < 0)
        return entry.meta.source_volume_ml(int(counted.sum()))

    def _target_number(self, scan: Entry | Scan, name: str) -> float:
        """The number of a usable scan."""
        number = parse_number(scan.targets[name])
        assert number is not None  # see `usable_entries`
        return number
