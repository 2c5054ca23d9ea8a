"""Classification of crops: which of several labelled structures lies at the centre."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.label_maps import LabelMaps
from ssl_pipeline.evaluation.data.labelled_crops import (
    LabelledCrop,
    Pose,
    box_about,
    labelled_crop,
)
from ssl_pipeline.evaluation.tasks.cost import CostInputs, TaskCost
from ssl_pipeline.evaluation.tasks.crop_task import CropClassTask
from ssl_pipeline.evaluation.tasks.task import TruthName
from ssl_pipeline.store.catalog import Entry, ScanRow
from ssl_pipeline.types import Triple
from ssl_pipeline.views.config import AffineAugmentation
from ssl_pipeline.views.rng import generator


class CropClassification(CropClassTask):
    """Crops centred on each class of a scan's label map."""

    kind: Literal["crop_classification"] = "crop_classification"
    label: str = Field(description="name of the labels that the roots declare")
    crops_per_class: int = Field(
        1,
        ge=1,
        description="crops of a class and scan: 1 is centred on its centroid, more on its voxels",
    )

    pose: AffineAugmentation = Field(
        AffineAugmentation(),
        description="rotation and zoom of crops, scored ones too: with them neither the scan's "
        "frame nor the size tells the class",
    )

    @property
    def crops_per_scan(self) -> int:
        """Labelled crops of a scan that shows every class."""
        return len(self.classes) * self.crops_per_class

    def truth_names(self) -> tuple[TruthName, ...]:
        """The label."""
        return (TruthName("label", "label", self.label),)

    def usable_entries(self, scans: Sequence[ScanRow]) -> list[ScanRow]:
        """Scans that have a label file."""
        (truth,) = self.truth_names()
        return self.entries_with(self.entries(scans), truth)

    def truth_key(self, entry: Entry, labels: LabelMaps) -> str:
        """What the classes of a scan's crops depend on."""
        return labels.sha256(entry, self.label)

    def labelled_crops(
        self, entries: list[Entry], labels: LabelMaps, size: Triple, seed: int
    ) -> list[LabelledCrop]:
        """Crops centred on the centroid of each class, or on random voxels of it, in their poses.

        A class that a scan's labels lack gives no crop. Crops may reach out of the volume.
        """
        crops = []
        for entry in entries:
            label_map = labels.load(entry, self.label)
            for index, value in enumerate(self.class_values):
                where = np.flatnonzero(label_map == value)
                if not len(where):
                    continue
                rng = generator(seed, value, f"crops {entry.voxel_hash}")
                for centre in self._centres(where, label_map.shape, rng):
                    crop = labelled_crop(entry, box_about(centre, size), index)
                    pose = self._draw_pose(seed, int(rng.integers(2**31)))
                    crops.append(replace(crop, pose=pose))
        return crops

    def cost(self, inputs: CostInputs, finetune: Finetune, crop: Triple) -> TaskCost:
        """Cost of its cells, beside that of the encoder."""
        found = super().cost(inputs, finetune, crop)
        return replace(found, label_files=len(inputs.voxels), label_bytes=sum(inputs.voxels))

    def _draw_pose(self, seed: int, number: int) -> Pose | None:
        from ssl_pipeline.views.augmentation_params import SampleKey, draw_affine

        is_posed, zoom, matrix = draw_affine(SampleKey(seed, number), self.pose)
        return Pose(zoom, tuple(map(tuple, matrix.tolist()))) if is_posed else None

    def _centres(
        self, where: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Voxel positions (z, y, x) of the centres of crops."""
        if self.crops_per_class == 1:
            return [np.stack(np.unravel_index(where, shape)).mean(axis=1)]
        chosen = rng.choice(where, min(self.crops_per_class, len(where)), replace=False)
        return list(np.stack(np.unravel_index(chosen, shape), axis=1))
