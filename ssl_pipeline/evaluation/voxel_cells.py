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
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import PIXELS, Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.crops import Volumes
from ssl_pipeline.evaluation.decoder import Segmenter
from ssl_pipeline.evaluation.labels import OUTSIDE
from ssl_pipeline.evaluation.metrics import dice
from ssl_pipeline.evaluation.networks import keep, segmenter
from ssl_pipeline.evaluation.optimise import seeded, trained
from ssl_pipeline.evaluation.plan import Plan
from ssl_pipeline.evaluation.segment import Drawn
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

    def __init__(self, plan: Plan, task: Segmentation, section: Finetune) -> None:
        self.plan, self.task, self.section = plan, task, section
        self.methods: dict[str, AdaptationMethod] = {m.name: m for m in section.methods}
        self.test = [e for e in plan.cohort.entries if e.split != "train"]

    @cached_property
    def shows(self) -> dict[str, frozenset[int]]:
        """Classes that each training subject's labels show; UserError where nobody shows any."""
        shown: dict[str, frozenset[int]] = {s: frozenset() for s in self.plan.cohort.train}
        for entry in self.plan.cohort.entries:
            if entry.split == "train":
                shown[entry.subject] |= present(self._indices(entry))
        if not any(shown.values()):
            raise UserError(
                f"Task {self.task.title!r}: the training subjects show none of the classes: "
                "check classes against the values in the labels."
            )
        return shown

    def compute(self, cell: Cell) -> dict[str, Any]:
        """Train a cell, segment every scored scan, and return the cell's file."""
        began = time.monotonic()
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
            rows = [self._scored(cell, e, model.predict(self._image(e))) for e in self.test]
        else:
            network, costs = self._network(cell, labelled, seed)
            rows = [self._scored(cell, e, self._segmented(network, e)) for e in self.test]
            kept = [keep(network, cell, self.plan.setting.out)] if self._keeps(cell) else []
        files = [*(row["file"] for row in rows if row["file"]), *kept]
        seconds = round(time.monotonic() - began, 3)
        return {"predictions": rows, "files": files, "costs": {**costs, "seconds": seconds}}

    def overlaps(self, network: Segmenter, volumes: Volumes) -> list[dict[str, Any]]:
        """How near a network comes on the scored scans, as they are or worse."""
        found = []
        for entry in self.test:
            predicted = segment.predict(
                network,
                volumes.reader,
                volumes.entries[entry.id],
                self.plan.size,
                self.section,
                self.plan.setting.device,
            )
            found.append(self._near(entry, predicted))
        return found

    def _keeps(self, cell: Cell) -> bool:
        asked = self.section.subjects or self.plan.setting.evaluate.subjects
        return self.section.keeps(cell.subjects, self.plan.budgets(asked))

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
        self, cell: Cell, labelled: list[Drawn], seed: int
    ) -> tuple[Segmenter, dict[str, int]]:
        """A trained network, and what that took."""
        setting, method = self.plan.setting, self.methods[cell.method]
        with seeded(seed, setting.device):
            network = segmenter(self.plan, cell, method, self.section)
            memory = segment.train(
                network,
                setting.reader,
                labelled,
                self.plan.size,
                self.section,
                method,
                seed=seed,
                device=setting.device,
            )
        costs = {"trained_parameters": trained(network), "memory_bytes": memory}
        method.merge(network.encoder)
        return network, costs

    def _segmented(self, network: Segmenter, entry: Entry) -> NDArray[np.uint8]:
        setting = self.plan.setting
        return segment.predict(
            network, setting.reader, entry, self.plan.size, self.section, setting.device
        )

    def _scored(self, cell: Cell, entry: Entry, predicted: NDArray[np.uint8]) -> dict[str, Any]:
        """How near one scan's prediction is, and the prediction where the section asks for it."""
        wanted = self.section.predictions
        written = wanted == "all" or (wanted == "first seed" and cell.seed == 0)
        name = f"predictions/{cell.name}/{entry.id}.nii.gz" if written else ""
        if written:
            values = np.array([0, *self.task.values], np.int16)[predicted]
            grid = to_source_grid(values, entry.meta)
            image = nib.Nifti1Image(grid, np.array(entry.meta.source_affine))
            packed = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
            write_bytes(self.plan.setting.out / name, packed)
        return {**self._near(entry, predicted), "file": name}

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
