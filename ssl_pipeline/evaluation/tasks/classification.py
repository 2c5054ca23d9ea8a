"""Classification of a whole scan, from one crop."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import LabelledCrop
from ssl_pipeline.evaluation.tasks.crop_task import CropClassTask
from ssl_pipeline.evaluation.tasks.scan_task import ScanTask
from ssl_pipeline.evaluation.tasks.task import TruthName
from ssl_pipeline.io.text import normalize_word
from ssl_pipeline.store.catalog import Entry, ScanRow
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.inventory import Scan


class Classification(ScanTask, CropClassTask):
    """Class of a scan, from a target that the roots or the table declare."""

    CLASSIFIED: ClassVar[Literal["", "scan", "voxel"]] = "scan"

    kind: Literal["classification"] = "classification"
    target: str = Field(description="name of the target that holds the class")

    @model_validator(mode="after")
    def _classes_can_be_told_apart(self) -> "Classification":
        values = {value: str(value).casefold() for value in self.classes}
        for value, name in self.classes.items():
            word = normalize_word(name).casefold()
            if not (word and values[value]):
                raise ValueError(
                    f"classes has the class {name}, whose value or name means in a table that "
                    "nothing is known: write it otherwise, there too"
                )
            if word in (values[other] for other in self.classes if other != value):
                raise ValueError(
                    f"classes has the name {name}, which is the value of another class: choose a "
                    "name that is no value"
                )
        return self

    @property
    def truth(self) -> TruthName:
        """The target."""
        return TruthName("target", "target", self.target)

    def usable_entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Scans whose target is one of the classes, by value or by name."""
        with_target = super().usable_entries(scans)
        usable = [entry for entry in with_target if self.scan_class(entry) is not None]
        others = sorted({e.targets[self.target] for e in with_target} - self._indices.keys())
        known = {word.casefold() for word in self._indices}
        if not usable or any(word.casefold() in known for word in others):
            raise UserError(
                f"Task {self.title!r}: target {self.target!r} is {', '.join(others[:10])}, none of "
                f"which is in classes: {', '.join(f'{k}: {v}' for k, v in self.classes.items())}."
            )
        return usable

    def inventory_targets(self, scan: Scan) -> frozenset[int | float] | None:
        """The class of a usable scan."""
        index = self.scan_class(scan)
        return None if index is None else frozenset({index})

    def exclusion_note(self, entries: Sequence[Entry]) -> str:
        """What results say of unusable scans, with the values that are no class."""
        given = (entry for entry in entries if entry.targets.get(self.target))
        values = Counter(e.targets[self.target] for e in given if self.scan_class(e) is None)
        shown = ", ".join(f"{value} ({number})" for value, number in values.most_common(10))
        note = super().exclusion_note(entries)
        return f"{note} Values of {self.target} that are no class: {shown}." if shown else note

    def labelled_crops(
        self, entries: list[Entry], labels: LabelMaps, size: Triple, seed: int
    ) -> list[LabelledCrop]:
        """One crop for each scan."""
        indexed = ((entry, self.scan_class(entry)) for entry in entries)
        return [
            self.scan_crop(entry, labels, size, index)
            for entry, index in indexed
            if index is not None
        ]

    def scan_class(self, scan: Entry | Scan) -> int | None:
        """The class of a usable scan, by index."""
        return self._indices.get(scan.targets[self.target])

    @property
    def _indices(self) -> dict[str, int]:
        """The index of each class by its value and by its name, as words are compared."""
        names = (normalize_word(name) for name in self.class_names)
        return {
            word: index
            for index, words in enumerate(zip(map(str, self.classes), names, strict=True))
            for word in words
        }
