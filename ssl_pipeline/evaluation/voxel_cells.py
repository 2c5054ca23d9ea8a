"""Segmentation cells: train, slide over every scored scan, write it back, and score it.

Scores are taken on the stored grid, where labels were brought by nearest neighbour, distances in
mm; the written maps are in the scan's own grid, with the values that the label files use.
"""

import gzip
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.atomic import write_bytes
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation import segment, voxel_pca
from ssl_pipeline.evaluation.cells import GIVEN, PIXELS, Cell
from ssl_pipeline.evaluation.cohort import check_learned, unscored
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.crops import Volumes
from ssl_pipeline.evaluation.labels import OUTSIDE
from ssl_pipeline.evaluation.metrics import dice
from ssl_pipeline.evaluation.networks import keep, of_voxels
from ssl_pipeline.evaluation.optimise import seeded, trained
from ssl_pipeline.evaluation.plan import Plan
from ssl_pipeline.evaluation.segment import Drawn
from ssl_pipeline.evaluation.segmenter import Segmenter
from ssl_pipeline.evaluation.surfaces import surfaces
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation, present
from ssl_pipeline.preprocess.labels import to_source_grid
from ssl_pipeline.preprocess.prepare import model_input
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.views.randomness import generator

NOTE = (
    "pixels + PCA: logistic regression on the principal components of each voxel's 5 x 5 x 5 "
    "neighbourhood. Dice leaves out scans where neither truth nor prediction shows a class, "
    "and scans that do not draw it where the task says so."
)


class VoxelCells:
    """A segmentation task, its labels, and how each cell is computed and scored."""

    def __init__(self, plan: Plan, task: Segmentation) -> None:
        self.plan, self.task = plan, task
        self.test = [e for e in plan.cohort.entries if e.split != "train"]

    @cached_property
    def scored(self) -> frozenset[int]:
        """Classes that the scored subjects' labels show."""
        return frozenset().union(*(present(self._indices(entry)) for entry in self.test))

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of classes that nobody is scored by."""
        classes = range(1, len(self.task.names) + 1)
        return unscored([self.task.names[i - 1] for i in classes if i not in self.scored])

    @cached_property
    def shows(self) -> dict[str, frozenset[int]]:
        """Classes that each training subject's labels show; UserError where that is not enough."""
        shown: dict[str, frozenset[int]] = {s: frozenset() for s in self.plan.cohort.train}
        for entry in self.plan.cohort.entries:
            if entry.split == "train":
                shown[entry.subject] |= present(self._indices(entry))
        if not any(shown.values()):
            raise UserError(
                f"Task {self.task.title!r}: the training subjects show none of the classes: "
                "check classes against the values in the labels."
            )
        learned = frozenset().union(*shown.values())
        lacking = [self.task.names[index - 1] for index in sorted(self.scored - learned)]
        check_learned(self.task.title, lacking)
        return shown

    def compute(self, cell: Cell, section: Finetune) -> dict[str, Any]:
        """Train a cell, segment every scored scan, and return the cell's file."""
        began = time.monotonic()
        if cell.init == GIVEN:
            return self._given(began)
        seed = self.plan.setting.seed + cell.seed
        subjects = set(self.plan.labelled(cell, self.shows))
        labelled = [
            self._drawn(entry)
            for entry in self.plan.cohort.entries
            if entry.split == "train" and entry.subject in subjects
        ]
        if cell.init == PIXELS:
            model = self._baseline(labelled, seed)
            costs, kept = {"trained_parameters": int(model.weight.size + model.bias.size)}, []
            segmented = (model.predict(self._image(entry)) for entry in self.test)
        else:
            network, costs = self._network(cell, section, labelled, seed)
            volumes = self.plan.volumes
            segmented = (self._segmented(network, e, volumes, section) for e in self.test)
            kept = [keep(network, cell, self.plan.setting.out)] if section.keep_networks else []
        written = section.predictions == "all" or (
            section.predictions == "first seed" and cell.seed == 0
        )
        rows = [
            {**self._near(entry, each), "file": self._write(cell, entry, each) if written else ""}
            for entry, each in zip(self.test, segmented, strict=True)
        ]
        files = [*(row["file"] for row in rows if row["file"]), *kept]
        seconds = round(time.monotonic() - began, 3)
        return {"predictions": rows, "files": files, "costs": {**costs, "seconds": seconds}}

    def _given(self, began: float) -> dict[str, Any]:
        """Score what another method drew."""
        rows = []
        for entry in self.test:
            drawn = self.task.indices(self.plan.labels.of(entry, self.task.given or ""))
            rows.append({**self._near(entry, np.where(drawn == OUTSIDE, 0, drawn)), "file": ""})
        costs = {"trained_parameters": 0, "seconds": round(time.monotonic() - began, 3)}
        return {"predictions": rows, "files": [], "costs": costs}

    def overlaps(
        self, network: Segmenter, volumes: Volumes, section: Finetune
    ) -> list[dict[str, Any]]:
        """How near a network comes on the scored scans, as they are or worse."""
        return [
            self._near(entry, self._segmented(network, entry, volumes, section))
            for entry in self.test
        ]

    def _indices(self, entry: Entry) -> NDArray[np.uint8]:
        return self.task.indices(self.plan.labels.of(entry, self.task.label))

    def _drawn(self, entry: Entry) -> Drawn:
        indices = self._indices(entry)
        return segment.drawn(entry, indices, self.task.told(indices), self.plan.setting.seed)

    def _image(self, entry: Entry) -> NDArray[np.float32]:
        return model_input(self.plan.setting.reader.volume(entry.id), entry.meta)

    def _baseline(self, labelled: list[Drawn], seed: int) -> voxel_pca.VoxelModel:
        """Background comes from scans that draw every class, if there are such scans."""
        sure = any(all(scan.told) for scan in labelled)
        samples = [
            voxel_pca.sample(
                self._image(scan.entry),
                scan.indices,
                scan.told,
                generator(seed, 0, f"voxels {scan.entry.pixels}"),
                background=all(scan.told) or not sure,
            )
            for scan in labelled
        ]
        return voxel_pca.fit(samples, seed)

    def _network(
        self, cell: Cell, section: Finetune, labelled: list[Drawn], seed: int
    ) -> tuple[Segmenter, dict[str, int]]:
        """A trained network, and what that took."""
        setting, (method,) = self.plan.setting, section.methods
        with seeded(seed, setting.device):
            network = of_voxels(self.plan, cell, method, section)
            memory = segment.train(
                network,
                setting.reader,
                labelled,
                self.plan.size,
                section,
                method,
                seed=seed,
                device=setting.device,
            )
        costs = {"trained_parameters": trained(network), "memory_bytes": memory}
        method.merge(network.encoder)
        return network, costs

    def _segmented(
        self, network: Segmenter, entry: Entry, volumes: Volumes, section: Finetune
    ) -> NDArray[np.uint8]:
        found, device = volumes.entries[entry.id], self.plan.setting.device
        return segment.predict(network, volumes.reader, found, self.plan.size, section, device)

    def _write(self, cell: Cell, entry: Entry, predicted: NDArray[np.uint8]) -> str:
        """Keep a prediction in the scan's own grid; returns its name."""
        name = f"predictions/{cell.name}/{entry.id}.nii.gz"
        values = np.array([0, *self.task.values], np.int16)[predicted]
        grid = to_source_grid(values, entry.meta)
        image = nib.Nifti1Image(grid, np.array(entry.meta.source_affine))
        packed = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
        write_bytes(self.plan.setting.out / name, packed)
        return name

    def _near(self, entry: Entry, predicted: NDArray[np.uint8]) -> dict[str, Any]:
        """One scan's scores."""
        truth = self._indices(entry)
        told = self.task.told(truth)
        distances, shares = surfaces(
            predicted,
            truth,
            told,
            OUTSIDE,
            spacing_mm=entry.meta.spacing_mm[::-1],
            tolerance_mm=self.task.tolerance_mm,
        )
        return {
            "scan": entry.id,
            "subject": entry.subject,
            "dice": _known(dice(predicted, truth, told, OUTSIDE)),
            "hd95_mm": _known(distances),
            "surface_dice": _known(shares),
        }


def _known(values: Sequence[float]) -> list[float | None]:
    """As JSON can say them."""
    return [None if np.isnan(value) else round(value, 6) for value in values]
