"""Labels that a model predicted and a reader accepted are learned from, and choose nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.cells import Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.finetuning.early_stopping import hold_out
from ssl_pipeline.evaluation.probes.folds import choose_candidate
from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.crop_cells import CropCells
from ssl_pipeline.evaluation.runner.segmentation_cells import SegmentationCells
from ssl_pipeline.evaluation.tasks.classification import Classification
from ssl_pipeline.evaluation.tasks.crop_classification import CropClassification
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.shard import ALL_CHANNELS

PREDICTED = frozenset({"s00", "s02", "s03", "s05"})  # of the six training subjects
CLASSES = {3: "bright", 5: "dark"}
SEGMENTATION = Segmentation(title="Blobs", label="blobs", classes=CLASSES)
CROPS = CropClassification(title="Blobs", label="blobs", classes=CLASSES)


@pytest.fixture
def corrected(small):
    """A study whose labels of PREDICTED were predicted."""
    kinds = {name: {"blobs": {"kind": "prediction"}} for name in PREDICTED}
    return replace(
        small,
        catalog=Catalog(
            tuple(
                replace(entry, label_versions=kinds.get(entry.subject, {}))
                for entry in small.catalog.entries
            )
        ),
    )


def test_who_may_choose_follows_from_the_labels_that_the_task_reads(corrected, small, tmp_path):
    runner = TaskRunner(SEGMENTATION, corrected.context(tmp_path))
    assert runner.subject_split.predicted_subjects == PREDICTED
    assert set(runner.subject_split.train_subjects) > PREDICTED
    other = Classification(title="Corner", target="corner", classes={0: "left", 1: "right"})
    assert not any(other.has_predicted_truth(entry) for entry in corrected.catalog.entries)
    before = TaskRunner(SEGMENTATION, small.context(tmp_path))
    assert runner.truth_hash != before.truth_hash, "what chooses decides what a cell predicts"


def test_fine_tuning_holds_out_none_of_them(corrected, tmp_path):
    trained: set[str] = set()

    class Reader(CropReader):
        """Remembers what is read with gradients."""

        def read_crop(self, scan_id, start_zyx, size_zyx, channels=ALL_CHANNELS):
            trained.add(scan_id) if torch.is_grad_enabled() else None
            return super().read_crop(scan_id, start_zyx, size_zyx, channels)

    context = corrected.context(tmp_path, reader=Reader(corrected.reader.folder, corrected.catalog))
    runner = TaskRunner(SEGMENTATION, context)
    cells = SegmentationCells(runner, SEGMENTATION)
    section = Finetune(
        precision="fp32", steps=20, batch_size=1, held_out_share=0.5, overlap=0,
        keep_networks="none", keep_predictions="none",
    )  # fmt: skip
    section = section.model_copy(update={"methods": section.methods[:1]})
    cells.compute(Cell(section.methods[0].name, "pretrained", 0, 0), section)
    subjects = {runner.entries[scan].subject for scan in trained}
    train = set(runner.subject_split.train_subjects)
    assert subjects & train == PREDICTED, "the other two are held out"


@pytest.mark.parametrize("seed", range(5))
def test_held_out_are_as_many_as_without_them_as_far_as_there_are(seed):
    rng = np.random.default_rng(seed)
    assert len(hold_out("abcdef", 0.5, rng, predicted="ab")) == 3
    assert hold_out("abcdef", 0.5, rng, predicted="abcde") == {"f"}
    assert hold_out("abcdef", 0.5, rng, predicted="abcdef") == frozenset()


def test_probes_know_which_crops_may_choose(corrected, tmp_path):
    cells = CropCells(TaskRunner(CROPS, corrected.context(tmp_path)), CROPS)
    features = np.zeros((len(cells.train_crops), 1, 2), np.float32)
    labelled = cells.labelled_features(Cell("linear", "pretrained", 0, 0), features)
    assert labelled.may_choose is not None
    may = {
        crop.subject: bool(row)
        for crop, row in zip(cells.train_crops, labelled.may_choose, strict=True)
    }
    assert {name for name, choosing in may.items() if not choosing} == PREDICTED


def test_settings_are_chosen_by_the_other_crops_alone():
    targets = np.arange(40) % 2
    seen: list[int] = []

    def remember(part):
        seen.extend(part.subjects)
        return [lambda features: np.eye(2)[np.zeros(len(features), int)]]

    may_choose = np.arange(40) < 20
    known = LabelledFeatures(
        np.zeros((40, 1, 3), np.float32), targets, np.arange(40) // 2, 2, may_choose
    )
    assert choose_candidate(remember, known, 1) == 0
    assert set(seen) == set(range(10))
    assert choose_candidate(remember, replace(known, may_choose=np.arange(40) < 6), 1) is None
