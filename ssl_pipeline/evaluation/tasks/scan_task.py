"""Base class of tasks of whole scans: one crop a scan, with what is to be predicted of it.

A crop of fixed size shows a part of most scans, and which part is a setting: what a scan's class
depends on must be in it. Neither the middle nor the centre of mass is best in general. Of 51 CTs of
head and neck, crops of 64 voxels a side in the middle of the volume showed at least
80 % of the jaw in all of them and of the brainstem in 8 %; the centre of mass of the body, in 67 %
and 52 %. So the middle stays the default, results say how much of a scan the crops show, and a task
whose place is known should name a label, or show whole scans.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, model_validator

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL, LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import (
    CropBox,
    LabelledCrop,
    box_about,
    labelled_crop,
    middle_box,
    whole_box,
)
from ssl_pipeline.evaluation.tasks.cost import CostInputs, TaskCost
from ssl_pipeline.evaluation.tasks.crop_task import CropTask
from ssl_pipeline.evaluation.tasks.task import TruthName
from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.preprocess.prepare import VolumeMeta
from ssl_pipeline.store.catalog import Entry, ScanRow
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.config import CROP_PLACES
from ssl_pipeline.volumes.inventory import Scan

if TYPE_CHECKING:
    from torch import nn

    from ssl_pipeline.evaluation.prediction.predictor import ScanPredictor

VOLUME, FOREGROUND = CROP_PLACES


class ScanTask(CropTask):
    """A task whose truth is a class or a number of a whole scan."""

    TAKES_SCAN_FEATURES: ClassVar[bool] = True

    crop_centre: str = Field(
        VOLUME,
        min_length=1,
        description="where a scan's crop lies: `volume`, the middle of what is stored; "
        "`foreground`, its centre of mass; or the name of a label, on the centre of mass of its "
        "voxels above 0. Scans without that label are left out, and of a new scan it must be known "
        "too, so it must be none that is drawn by who knows the truth",
    )
    whole_scan: bool = Field(
        False,
        description="the crop shows the whole stored volume instead, at the finest spacing at "
        "which it fits into crop_voxels",
    )

    @model_validator(mode="after")
    def _one_place(self) -> "ScanTask":
        if self.whole_scan and self.crop_centre != VOLUME:
            raise ValueError(
                f"crop_centre is {self.crop_centre}, and whole_scan shows all of the scan: leave "
                "one of them out"
            )
        if TruthName("label", self.truth.key, self.crop_centre) == self.truth:
            raise ValueError(
                f"crop_centre is {self.crop_centre}, which is what is predicted: crops would lie "
                "where the truth is"
            )
        return self

    @property
    @abstractmethod
    def truth(self) -> TruthName:
        """The label or target that is predicted."""

    def truth_names(self) -> tuple[TruthName, ...]:
        """The label or target that is predicted, and the label that crops lie on."""
        if self.can_predict:
            return (self.truth,)
        return self.truth, TruthName("label", "crop_centre", self.crop_centre)

    def usable_entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Scans of its roots that have the truth, and the label that crops lie on."""
        entries = self.entries(scans)
        for name in self.truth_names():
            entries = self.entries_with(entries, name)
        return entries

    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the truth of a scan, and the place of its crop, depend on."""
        found = [
            labels.sha256(entry, each.name) if each.kind == "label" else entry.targets[each.name]
            for each in self.truth_names()
        ]
        return found[0] if len(found) == 1 else sha256_json(found)

    def scan_crop(
        self, entry: Entry, labels: LabelMaps, size: Triple, target: int | float
    ) -> LabelledCrop:
        """The crop of a scan. Raises UserError for a label to lie on that shows nothing."""
        if self.can_predict:
            return labelled_crop(entry, self.scan_box(entry.meta, size), target)
        label_map = labels.load(entry, self.crop_centre)
        where = np.nonzero((label_map > 0) & (label_map != IGNORE_LABEL))
        if not len(where[0]):
            raise self._empty_label_error(entry.id)
        return labelled_crop(entry, box_about(np.mean(where, axis=1), size), target)

    def check_scan(self, scan: Scan) -> None:
        """Raise UserError for a label to lie on that shows nothing in all of the scan."""
        if not self.can_predict and scan.label_classes.get(self.crop_centre) == []:
            raise self._empty_label_error(scan.id)

    def _empty_label_error(self, scan_id: str) -> UserError:
        return UserError(
            f"Task {self.title!r}: label {self.crop_centre!r} of scan {scan_id} is empty where the "
            "scan is stored, so no crop can lie on it: remove that label file, and the scan is "
            "left out, or set another crop_centre."
        )

    @property
    def can_predict(self) -> bool:
        """Whether crops lie where no label is needed."""
        return self.crop_centre in CROP_PLACES

    def scan_box(self, meta: VolumeMeta, size: Triple) -> CropBox:
        """The box of a volume that its crop of `size` shows; of a task that `can_predict`."""
        if self.whole_scan:
            return whole_box(meta.shape, size)
        if self.crop_centre == VOLUME:
            return middle_box(meta.shape, size)
        return box_about(meta.foreground_centre, size)

    def predictor(
        self, networks: Sequence["nn.Module"], finetune: Finetune, crop: Triple
    ) -> "ScanPredictor":
        """Predicts from one crop of a scan."""
        from ssl_pipeline.evaluation.prediction.crops import CropPredictor

        if not self.can_predict:
            return super().predictor(networks, finetune, crop)
        return CropPredictor(
            networks, self.class_names, crop, lambda meta: self.scan_box(meta, crop)
        )

    def cost(self, inputs: CostInputs, finetune: Finetune, crop: Triple) -> TaskCost:
        """Cost of its cells, beside that of the encoder."""
        found = super().cost(inputs, finetune, crop)
        if self.can_predict:
            return found
        return replace(found, label_files=len(inputs.voxels), label_bytes=sum(inputs.voxels))

    def crop_note(self, entries: Sequence[Entry], size: Triple) -> str:
        """What results say of where crops lie, and of how much of the scans they show."""
        if self.whole_scan:
            return "A crop shows the whole stored volume of a scan."
        shares = [
            math.prod(min(1.0, side / whole) for side, whole in zip(size, e.shape, strict=True))
            for e in entries
        ]
        places = {VOLUME: "the middle of the volume", FOREGROUND: "the foreground's centre of mass"}
        place = places.get(self.crop_centre, f"the label {self.crop_centre}")
        return (
            f"A crop lies on {place} and shows up to {100 * median(shares):.0f} % of the stored "
            "volume (median over scans): what is elsewhere is not seen (see crop_centre and "
            "whole_scan of a task)."
        )
