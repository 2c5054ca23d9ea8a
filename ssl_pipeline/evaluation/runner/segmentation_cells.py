"""Segmentation cells: train, segment every scored scan, write the predictions, and score them.

Networks learn on the stored grid. They are scored in the scan's own, against the label as it was
drawn, and so are the baseline and external predictions; what is written is what is scored, with the
values of the label files.
"""

import gzip
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from torch import nn

from ssl_pipeline.evaluation.baselines import voxel_pca
from ssl_pipeline.evaluation.cells import EXTERNAL, PIXELS, Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.crops import StoredVolumes
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL
from ssl_pipeline.evaluation.data.source_grid import classes_on_source_grid
from ssl_pipeline.evaluation.data.voxel_sample import draw_voxels, sampled_probabilities
from ssl_pipeline.evaluation.finetuning import segmentation_training
from ssl_pipeline.evaluation.finetuning.largest_components import LabelledScan, classes_to_clean
from ssl_pipeline.evaluation.finetuning.optimizer import (
    count_trained_parameters,
    fixed_seed,
)
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.finetuning.segmentation_training import LabelledVolume
from ssl_pipeline.evaluation.metrics.segmentation import dice
from ssl_pipeline.evaluation.metrics.surface import surface_metrics
from ssl_pipeline.evaluation.prediction.calibration import Probabilities
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.finetune_cells import (
    FinetuneCells,
    SavedNetwork,
    settled_section,
    with_components,
)
from ssl_pipeline.evaluation.runner.networks import (
    build_segmentation_model,
    load_network,
    save_network,
    training_settings,
)
from ssl_pipeline.evaluation.runner.subject_splits import (
    calibration_entries,
    check_learnable,
    unscored_note,
)
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation, classes_present
from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.atomic import sha256_json, write_bytes
from ssl_pipeline.preprocess.prepare import model_input
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.views.rng import generator
from ssl_pipeline.volumes.geometry import spacing_mm

SEGMENTATION_NOTE = (
    "pixels + PCA: logistic regression on the principal components of each voxel's 5 x 5 x 5 "
    "neighbourhood. All are scored in each scan's own grid, against the label as it was drawn: "
    "probabilities go back to it by linear interpolation, and what lies outside of the stored crop "
    "is predicted as background. Dice leaves out scans where neither truth nor prediction shows a "
    "class, and scans in which it is not annotated where the task says so."
)


class SegmentationCells(FinetuneCells):
    """A segmentation task with its labels: computes and scores its cells."""

    def __init__(self, runner: TaskRunner, task: Segmentation) -> None:
        self.runner, self.task = runner, task
        self.test_entries = runner.test_entries

    @cached_property
    def scored_classes(self) -> frozenset[int]:
        """Classes that the scored subjects' labels show."""
        return frozenset().union(
            *(classes_present(self._truth(entry, self.task.label)) for entry in self.test_entries)
        )

    def notes(self, finetune: Finetune, cells: Collection[Cell]) -> tuple[str, ...]:
        """Notes on the baseline, on methods that are left out and on classes that nobody shows."""
        supported = self.task.supported_methods(finetune)
        left_out = ", ".join(each.TITLE for each in finetune.methods if each not in supported)
        names = enumerate(self.task.class_names, start=1)
        return (
            SEGMENTATION_NOTE,
            *((f"Not available for segmentation: {left_out}.",) if left_out else ()),
            *((self._choice_note(),) if finetune.largest_component == "auto" else ()),
            *unscored_note([name for index, name in names if index not in self.scored_classes]),
        )

    def _choice_note(self) -> str:
        subjects = len({entry.subject for entry in self._choosing_entries})
        if not subjects:
            return (
                "No class keeps its largest component alone: there is no subject who is neither "
                "trained on nor scored, by whom networks could choose."
            )
        return (
            "Each network keeps the largest component alone of the classes where that raised the "
            f"Dice of {format_count(subjects, 'subject')} who are neither trained on nor scored."
        )

    def baseline_hash(self, name: str) -> str:
        """Hash of external predictions."""
        label = self.task.external_predictions
        if name != EXTERNAL or not label:
            return ""
        labels = self.runner.label_maps
        return sha256_json([labels.sha256(entry, label) for entry in self.test_entries])

    @cached_property
    def classes_by_subject(self) -> dict[str, frozenset[int]]:
        """Classes in each training subject's labels; UserError where they cannot be learned."""
        found: dict[str, frozenset[int]] = {
            s: frozenset() for s in self.runner.subject_split.train_subjects
        }
        for entry in self.runner.subject_split.entries:
            if entry.split == "train":
                found[entry.subject] |= classes_present(self._class_indices(entry))
        learned = frozenset().union(*found.values())
        check_learnable(
            self.task, [each - 1 for each in learned], [each - 1 for each in self.scored_classes]
        )
        return found

    def compute(self, cell: Cell, section: Finetune) -> dict[str, Any]:
        """Train a cell, segment every scored scan, and return the cell's file."""
        started = time.monotonic()
        if cell.initialization == EXTERNAL:
            return self._score_external(started)
        seed = self.runner.context.seed + cell.seed
        subjects = set(self.runner.labelled_subjects(cell, self.classes_by_subject))
        labelled = [
            self._labelled_volume(entry)
            for entry in self.runner.subject_split.entries
            if entry.split == "train" and entry.subject in subjects
        ]
        chosen: tuple[int, ...] = ()
        if cell.initialization == PIXELS:
            model = self._fit_baseline(labelled, seed)
            costs, kept = {"trained_parameters": int(model.weight.size + model.bias.size)}, []
            segmented: Iterator[NDArray[np.uint8]] = (
                classes_on_source_grid(model.predict(self._image(entry)), entry.meta)
                for entry in self.test_entries
            )
        else:
            network, costs = self._train_network(cell, section, labelled, seed)
            chosen = self._classes_to_clean(network, section)
            segmented = self._segment(
                network, self.runner.volumes, with_components(section, chosen)
            )
            kept = (
                [save_network(network, cell, self.runner.context.out)]
                if section.keep_networks != "none"
                else []
            )
        written = section.keep_predictions == "all" or (
            section.keep_predictions == "first seed" and cell.seed == 0
        )
        rows = [
            {
                **self.score_scan(entry, each),
                "file": self._write_prediction(cell, entry, each) if written else "",
            }
            for entry, each in zip(self.test_entries, segmented, strict=True)
        ]
        files = [*(row["file"] for row in rows if row["file"]), *kept]
        seconds = round(time.monotonic() - started, 3)
        return {
            "predictions": rows,
            "files": files,
            "costs": {**costs, "seconds": seconds},
            "largest_components": chosen,
        }

    def _score_external(self, started: float) -> dict[str, Any]:
        """Score external predictions."""
        rows = []
        for entry in self.test_entries:
            found = self._truth(entry, self.task.external_predictions or "")
            predicted = np.where(found == IGNORE_LABEL, 0, found)
            rows.append({**self.score_scan(entry, predicted), "file": ""})
        costs = {"trained_parameters": 0, "seconds": round(time.monotonic() - started, 3)}
        return {"predictions": rows, "files": [], "costs": costs}

    def predict(self, network: SavedNetwork, volumes: StoredVolumes) -> list[dict[str, Any]]:
        """Scores of a saved network on the scored scans, clean or corrupted."""
        built = build_segmentation_model(
            self.runner, network.cell, network.method, network.finetune
        )
        model = load_network(built, network).to(self.runner.context.device)
        segmented = self._segment(model, volumes, settled_section(network))
        pairs = zip(self.test_entries, segmented, strict=True)
        return [self.score_scan(entry, predicted) for entry, predicted in pairs]

    def class_probabilities(
        self, network: nn.Module, section: Finetune, entry: Entry
    ) -> tuple[Probabilities, NDArray[np.int64]]:
        """Probabilities and classes of voxels about what the label shows (`draw_voxels`).

        None where some class is not annotated, for its voxels may be labelled background.
        """
        truth = self._truth(entry, self.task.label)
        if not all(self.task.annotated_classes(truth)):
            return np.zeros((0, len(self.task.classes) + 1)), np.zeros(0, np.int64)
        rng = generator(self.runner.context.seed, 0, f"calibration {entry.voxel_hash}")
        chosen = draw_voxels(truth, spacing_mm(np.array(entry.meta.source_affine)), rng)
        slabs = segmentation_training.stored_probabilities(
            network, self.runner.context.reader, entry, self.runner.crop_size, section
        )
        return sampled_probabilities(slabs, entry.meta, truth, chosen)

    def _class_indices(self, entry: Entry) -> NDArray[np.uint8]:
        """A scan's class indices (z, y, x) on its stored grid."""
        return self.task.class_indices(self.runner.label_maps.load(entry, self.task.label))

    def _truth(self, entry: Entry, label: str) -> NDArray[np.uint8]:
        """The class indices (x, y, z) of a label of a scan on its own grid."""
        return self.task.class_indices(self.runner.label_maps.load_on_source_grid(entry, label))

    def _labelled_volume(self, entry: Entry) -> LabelledVolume:
        indices = self._class_indices(entry)
        return segmentation_training.build_labelled_volume(
            entry, indices, self.task.annotated_classes(indices), self.runner.context.seed
        )

    def _image(self, entry: Entry) -> NDArray[np.float32]:
        return model_input(self.runner.context.reader.read_volume(entry.id), entry.meta)

    def _fit_baseline(self, labelled: list[LabelledVolume], seed: int) -> voxel_pca.VoxelModel:
        """Background comes from scans that annotate every class, if there are such scans."""
        any_complete = any(all(scan.annotated_classes) for scan in labelled)
        samples = [
            voxel_pca.sample_voxels(
                self._image(scan.entry),
                scan.class_indices,
                scan.annotated_classes,
                generator(seed, 0, f"voxels {scan.entry.voxel_hash}"),
                background=all(scan.annotated_classes) or not any_complete,
            )
            for scan in labelled
        ]
        return voxel_pca.fit(samples, seed)

    def _train_network(
        self, cell: Cell, section: Finetune, labelled: list[LabelledVolume], seed: int
    ) -> tuple[SegmentationModel, dict[str, int]]:
        """A trained network, and its cost."""
        context, (method,) = self.runner.context, section.methods
        settings = training_settings(self.runner, cell, section, method)
        with fixed_seed(seed, context.device):
            network = build_segmentation_model(self.runner, cell, method, section)
            memory = segmentation_training.train_segmentation(
                network,
                context.reader,
                labelled,
                settings,
                self.runner.subject_split.predicted_subjects,
            )
        costs = {"trained_parameters": count_trained_parameters(network), "memory_bytes": memory}
        method.merge(network.encoder)
        return network, costs

    @cached_property
    def _choosing_entries(self) -> list[Entry]:
        """Scans of subjects who were neither trained on nor are scored."""
        context = self.runner.context
        return calibration_entries(self.task, context.catalog.entries, context.evaluate.split)

    def _classes_to_clean(self, network: SegmentationModel, section: Finetune) -> tuple[int, ...]:
        """Classes whose Dice rises where their largest component alone is kept, 1 the first.

        Over scans that nothing else of the cell depends on; none where the study leaves no choice.
        """
        if section.largest_component != "auto" or not self._choosing_entries:
            return ()
        whole = section.model_copy(update={"largest_component": False})

        def labelled_scan(entry: Entry) -> LabelledScan:
            truth = self._truth(entry, self.task.label)
            classes = segmentation_training.predict_volume(
                network, self.runner.context.reader, entry, self.runner.crop_size, whole
            )
            return classes, truth, self.task.annotated_classes(truth)

        return classes_to_clean(map(labelled_scan, self._choosing_entries))

    def _segment(
        self, network: SegmentationModel, volumes: StoredVolumes, section: Finetune
    ) -> Iterator[NDArray[np.uint8]]:
        """Predicted classes of every scored scan, on its own grid."""
        for entry in self.test_entries:
            found = volumes.entries[entry.id]
            yield segmentation_training.predict_volume(
                network, volumes.reader, found, self.runner.crop_size, section
            )

    def _write_prediction(self, cell: Cell, entry: Entry, predicted: NDArray[np.uint8]) -> str:
        """Write predicted classes (x, y, z); returns their path below the task's folder."""
        name = f"predictions/{cell.name}/{entry.id}.nii.gz"
        values = np.array([0, *self.task.class_values], np.int16)[predicted]
        image = nib.Nifti1Image(values, np.array(entry.meta.source_affine))
        packed = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
        write_bytes(self.runner.context.out / name, packed)
        return name

    def score_scan(self, entry: Entry, predicted: NDArray[np.uint8]) -> dict[str, Any]:
        """The scores of a scan's predicted classes (x, y, z), on its own grid."""
        truth = self._truth(entry, self.task.label)
        annotated = self.task.annotated_classes(truth)
        distances, surface_dice = surface_metrics(
            predicted,
            truth,
            annotated,
            IGNORE_LABEL,
            spacing_mm=spacing_mm(np.array(entry.meta.source_affine)),
            tolerance_mm=self.task.tolerance_mm,
        )
        return {
            "scan": entry.id,
            "subject": entry.subject,
            "dice": _to_json(dice(predicted, truth, annotated, IGNORE_LABEL)),
            "hd95_mm": _to_json(distances),
            "surface_dice": _to_json(surface_dice),
        }


def _to_json(values: Sequence[float]) -> list[float | None]:
    """Values for JSON: null where one is not defined."""
    return [None if np.isnan(value) else round(value, 6) for value in values]
