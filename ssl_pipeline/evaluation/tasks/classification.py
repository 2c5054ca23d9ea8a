"""Classification of a whole scan, from one crop at its centre."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop, centre_crop
from ssl_pipeline.evaluation.metrics.metric import BALANCED_ACCURACY
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.store.catalog import Catalog, Entry
from ssl_pipeline.views.config import Triple


class Classification(Task):
    """Class of a scan, from a target that the roots or the table declare."""

    METRIC: ClassVar[str] = BALANCED_ACCURACY
    SUPPORTED_STAGES: ClassVar[tuple[str, ...]] = ("probe", "finetune")

    kind: Literal["classification"] = "classification"
    target: str = Field(description="name of the target that holds the class")

    @model_validator(mode="after")
    def _two(self) -> "Classification":
        if len(self.classes) < 2:
            raise ValueError("classes has fewer than two entries: name at least two")
        return self

    def usable_entries(self, catalog: Catalog) -> list[Entry]:
        """Scans whose target is one of the classes, by value or by name."""
        with_target = self.entries_with(self.entries(catalog), "target", self.target)
        usable = [entry for entry in with_target if self._index(entry) is not None]
        if not usable:
            found = sorted({entry.targets[self.target] for entry in with_target})[:10]
            raise UserError(
                f"Task {self.title!r}: target {self.target!r} is {', '.join(found)}, none of which "
                f"is in classes: {', '.join(f'{k}: {v}' for k, v in self.classes.items())}."
            )
        return usable

    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the class of a scan depends on."""
        return entry.targets[self.target]

    def labelled_crops(
        self, entries: list[Entry], labels: LabelMaps, size: Triple, seed: int
    ) -> list[LabelledCrop]:
        """One crop for each scan, at the centre of its volume."""
        indexed = ((entry, self._index(entry)) for entry in entries)
        return [centre_crop(entry, size, index) for entry, index in indexed if index is not None]

    def _index(self, entry: Entry) -> int | None:
        word = entry.targets[self.target]
        for index, (value, name) in enumerate(self.classes.items()):
            if word in (str(value), name):
                return index
        return None
