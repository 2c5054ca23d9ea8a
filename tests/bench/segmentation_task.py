"""A segmentation task of a study, on the study's splits: our side of the comparison with nnU-Net.

Our network starts from random weights, learns from a few subjects by the code of fine-tuning, and
is scored as the pipeline scores: mean Dice on each scan's own grid.
"""

import time
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.evaluation.adaptation.full import Full
from ssl_pipeline.evaluation.cells import RANDOM, Cell
from ssl_pipeline.evaluation.config import Evaluate, Finetune
from ssl_pipeline.evaluation.finetuning import segmentation_training
from ssl_pipeline.evaluation.finetuning.optimizer import fixed_seed
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.metrics.scores import MetricValue
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.finetune import cell_section
from ssl_pipeline.evaluation.runner.networks import build_segmentation_model, training_settings
from ssl_pipeline.evaluation.runner.segmentation_cells import SegmentationCells
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.models import ResEnc
from ssl_pipeline.models.unet_decoder import PretrainedNetwork
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.types import Triple
from ssl_pipeline.volumes.config import Data, Splits
from ssl_pipeline.volumes.discovery import discover_scans
from ssl_pipeline.volumes.readers import Source, read_volume
from ssl_pipeline.volumes.subjects.splits import read_subject_list
from stages import evaluation_inputs
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study


@dataclass(frozen=True)
class Budget:
    """What both sides learn from, and for how long."""

    subjects: int  # labelled training subjects
    steps: int  # of ours
    batch_size: int  # of ours
    crop_voxels: Triple  # of ours (z, y, x)
    max_scored_scans: int | None = None  # the first ones; None is all
    seed: int = 0

    @property
    def samples(self) -> int:
        """Crops that each side sees."""
        return self.steps * self.batch_size


def prepare_study(path: Path, task: str, budget: Budget, out: Path) -> Study:
    """The study with this task and its roots alone, its volumes stored below `out`.

    Subjects are those of its lists, or draws; the scored ones are its validation subjects.
    """
    whole = load_study(path)
    config = whole.tasks[task]
    roots = tuple(r for r in whole.data.roots if not config.roots or r.title in config.roots)
    data = whole.data.model_copy(update={"roots": roots})
    splits = _splits_among(data, whole.source_folder, out / "lists")
    study = whole.model_copy(
        update={
            "data": data.model_copy(update={"splits": splits}),
            "model": ResEnc(preset="S"),
            "tasks": {task: config.model_copy(update={"crop_voxels": budget.crop_voxels})},
            "evaluate": Evaluate(
                split="val",
                subjects=(budget.subjects,),
                allow_pretraining_subjects=True,  # none is pretrained here
            ),
            "finetune": Finetune(steps=budget.steps, batch_size=budget.batch_size),
            "ablate": None,
            "output": str(out / "study"),
            "private": str(out / "private"),
        }
    )
    for stage in ("inventory", "preprocess"):
        run_stage(stage, study, {})
    return study


def _splits_among(data: Data, source_folder: Path, out: Path) -> Splits:
    """The splits of a study, whose lists keep the subjects of these roots alone."""
    found = discover_scans(data, source_folder, lambda *words: "/".join(words)).candidates
    names = {each.subject_name for each in found}
    out.mkdir(parents=True, exist_ok=True)
    lists = {}
    for split, name in data.splits.lists.items():
        listed = read_subject_list(source_folder / name, names)
        path = out / f"{split}.txt"
        path.write_text("".join(f"{subject}\n" for subject in listed if subject in names))
        lists[split] = str(path.resolve())
    return data.splits.model_copy(update={"lists": lists})


class SegmentationComparison:
    """The labelled and the scored scans of a task, our training, and scores of either side."""

    def __init__(self, study: Study, task: str, budget: Budget) -> None:
        config = study.tasks[task]
        assert isinstance(config, Segmentation)
        self.study, self.task, self.budget = study, config, budget
        out = study.stage_folder("finetune", {"task": task})
        context = evaluation_inputs.evaluation_context(study, "finetune", out, task)
        self.runner = TaskRunner(config, context)
        self.cells = SegmentationCells(self.runner, config)
        self.scored_entries = self.runner.test_entries[: budget.max_scored_scans]
        self.cell = Cell(Full().name, RANDOM, budget.subjects, budget.seed)

    def start_from(self, pretrained: PretrainedNetwork) -> None:
        """Train from these weights, and from their decoder where the study's section says so."""
        name, decoder = "pretrained", pretrained.decoder
        context = replace(
            self.runner.context,
            encoder_factory=lambda initialization, seed: deepcopy(pretrained.encoder),
            decoder_weights=lambda initialization: decoder.state_dict() if decoder else None,
            initializations={name: ""},
        )
        self.runner = TaskRunner(self.task, context)
        self.cell = replace(self.cell, initialization=name)

    @cached_property
    def labelled_entries(self) -> list[Entry]:
        """The scans that both sides learn from."""
        subjects = self.runner.labelled_subjects(self.cell, self.cells.classes_by_subject)
        entries = self.runner.subject_split.entries
        return [e for e in entries if e.split == "train" and e.subject in subjects]

    def train(self, steps: int) -> tuple[SegmentationModel, float]:
        """Our network after so many steps, and the seconds of the processor that these took."""
        section, context = self._section(steps), self.runner.context
        labelled = []
        for entry in self.labelled_entries:
            indices = self.task.class_indices(self.runner.label_maps.load(entry, self.task.label))
            annotated = self.task.annotated_classes(indices)
            labelled.append(
                segmentation_training.build_labelled_volume(entry, indices, annotated, context.seed)
            )
        seed = context.seed + self.budget.seed
        settings = training_settings(self.runner, self.cell, section, Full())
        with fixed_seed(seed, context.device):
            network = build_segmentation_model(self.runner, self.cell, Full(), section)
            began = time.process_time()
            segmentation_training.train_segmentation(network, context.reader, labelled, settings)
        return network, time.process_time() - began

    def _section(self, steps: int) -> Finetune:
        finetune = self.study.finetune.model_copy(update={"steps": steps})
        return cell_section(self.runner, finetune, self.cell, Full())

    def predict(self, network: SegmentationModel) -> dict[str, NDArray[np.uint8]]:
        """Classes (x, y, z) of every scored scan on its own grid, by its name."""
        reader, size = self.runner.context.reader, self.runner.crop_size
        section = self._section(self.budget.steps)
        return {
            entry.id: segmentation_training.predict_volume(network, reader, entry, size, section)
            for entry in self.scored_entries
        }

    def mean_dice(self, predictions: dict[str, NDArray[np.uint8]]) -> float:
        """Of such predictions, over classes and subjects, by the code that scores evaluations."""
        return self.score(self.score_scans(predictions)).value

    def score_scans(self, predictions: dict[str, NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """The scores of each scored scan, of predictions as `predict` gives them."""
        return [self.cells.score_scan(e, predictions[e.id]) for e in self.scored_entries]

    def score(self, rows: list[dict[str, Any]]) -> MetricValue:
        """The mean Dice of all scored subjects, from the rows of their scans."""
        subjects = tuple(dict.fromkeys(entry.subject for entry in self.scored_entries))
        return self.task.score(subjects, rows).primary

    def image(self, entry: Entry) -> nib.Nifti1Image:
        """A scan as it was found, in the units of its modality."""
        volume = read_volume(Source(Path(self.study.pseudonyms.origins[entry.id].path)))
        root = next(root for root in self.study.data.roots if root.title == entry.root)
        values = volume.data.astype(np.float32) + (root.intensity_offset or 0)
        return nib.Nifti1Image(values, volume.affine)

    def label(self, entry: Entry) -> nib.Nifti1Image:
        """Its classes on its own grid: 0 is background, 1 the first class."""
        found = self.runner.label_maps.load_on_source_grid(entry, self.task.label)
        affine = np.array(entry.meta.source_affine)
        return nib.Nifti1Image(self.task.class_indices(found), affine)
