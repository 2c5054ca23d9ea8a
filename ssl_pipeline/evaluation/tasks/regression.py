"""Regression of a number of a whole scan, from one crop at its centre."""

import math
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, model_validator

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL, LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop, centre_crop
from ssl_pipeline.evaluation.metrics.metric import R_SQUARED
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.views.config import Triple

MM3_PER_ML = 1000


class Regression(Task):
    """A number of a scan: a target that the roots or the table declare, or the volume of labels."""

    METRIC: ClassVar[str] = R_SQUARED
    SUPPORTED_STAGES: ClassVar[tuple[str, ...]] = ("probe", "finetune")

    kind: Literal["regression"] = "regression"
    target: str | None = Field(None, description="name of the target that holds the number")
    label: str | None = Field(
        None, description="name of the labels whose volume in ml is the number, in place of target"
    )
    classes: dict[NonNegativeInt, str] = Field(
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

    def usable_entries(self, catalog: Catalog) -> list[Entry]:
        """Scans that have the label, or whose target is a number; UserError for other words."""
        if self.target is None:
            return self.entries_with(self.entries(catalog), "label", self.label or "")
        with_target = self.entries_with(self.entries(catalog), "target", self.target)
        for entry in with_target:
            if _number(entry.targets[self.target]) is None:
                raise UserError(
                    f"Task {self.title!r}: target {self.target!r} of scan {entry.id} is "
                    f"{entry.targets[self.target]!r}, which is no number: leave it empty, or "
                    "correct it."
                )
        return with_target

    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the number of a scan depends on."""
        return entry.targets[self.target] if self.target else labels.sha256(entry, self.label or "")

    def labelled_crops(
        self, entries: list[Entry], labels: LabelMaps, size: Triple, seed: int
    ) -> list[LabelledCrop]:
        """One crop for each scan, at the centre of its volume."""
        return [centre_crop(entry, size, self._value(entry, labels)) for entry in entries]

    def _value(self, entry: Entry, labels: LabelMaps) -> float:
        if self.target:
            return float(entry.targets[self.target])
        label_map = labels.load(entry, self.label or "")
        counted = (label_map > 0) & (label_map != IGNORE_LABEL)
        if self.classes:
            counted = sum((label_map == value for value in self.class_values), start=label_map < 0)
        return float(counted.sum()) * math.prod(entry.meta.spacing_mm) / MM3_PER_ML


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
