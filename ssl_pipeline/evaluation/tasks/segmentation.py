"""Segmentation: a class for every voxel of a scan."""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL, LabelMap, LabelMaps
from ssl_pipeline.evaluation.metrics.metric import MEAN_DICE
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.store.catalog import Catalog, Entry


class Segmentation(Task):
    """Voxels of each class, from label files; value 0, and values not named, are background."""

    METRIC: ClassVar[str] = MEAN_DICE
    SUPPORTED_STAGES: ClassVar[tuple[str, ...]] = ("finetune",)

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

    def usable_entries(self, catalog: Catalog) -> list[Entry]:
        """Scans that have a label file."""
        return self.entries_with(self.entries(catalog), "label", self.label)

    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the classes of a scan's voxels depend on."""
        return labels.sha256(entry, self.label)

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
