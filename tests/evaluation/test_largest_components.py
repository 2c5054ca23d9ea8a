"""Largest components, and the choice of the classes that they are better for."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import scipy

from ssl_pipeline.evaluation.adaptation import Full
from ssl_pipeline.evaluation.cells import Cell, read_cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.decoders import Light
from ssl_pipeline.evaluation.finetuning.largest_components import (
    classes_to_clean,
    largest_components,
)
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.runner.finetune_cells import SavedNetwork, settled_section
from ssl_pipeline.store.catalog import Catalog
from tests.evaluation.test_finetune import ALL, VOXELS


def test_the_largest_component_of_each_class_is_left():
    classes = np.zeros((9, 9, 9), np.uint8)
    classes[1:4, 1:4, 1:4], classes[6, 6, 6] = 1, 1
    classes[6:8, 1:3, 1:3], classes[1, 7, 7] = 2, 2
    found = largest_components(classes)
    assert (found == 1).sum() == 27 and (found == 2).sum() == 8
    assert (found[classes == 0] == 0).all()
    assert not largest_components(np.zeros((3, 3, 3), np.uint8)).any()


def test_classes_that_are_not_chosen_keep_their_parts():
    classes = np.zeros((9, 9, 9), np.uint8)
    classes[1:4, 1:4, 1:4], classes[6, 6, 6] = 1, 1
    classes[6:8, 1:3, 1:3], classes[1, 7, 7] = 2, 2
    found = largest_components(classes, (2,))
    assert np.array_equal(found == 1, classes == 1) and (found == 2).sum() == 8
    assert np.array_equal(largest_components(classes, ()), classes)


def test_a_class_is_cleaned_where_its_islands_are_wrong_and_not_where_it_has_two_parts():
    truth = np.zeros((9, 9, 9), np.uint8)
    truth[1:4, 1:4, 1:4] = 1
    truth[6:8, 1:3, 1:3], truth[6:8, 6:8, 6:8] = 2, 2
    classes = truth.copy()
    classes[8, 4, 8] = 1
    annotated = (True, True, True)  # of the third class there is nothing
    assert classes_to_clean([(classes, truth, annotated)]) == (1,)
    assert classes_to_clean([(classes, truth, (False, True, True))]) == ()


def test_a_network_chooses_by_subjects_who_are_neither_trained_on_nor_scored(small, tmp_path):
    held_out = {entry.subject for entry in small.catalog.entries if entry.split == "train"}
    names = sorted(held_out)[:2]
    catalog = Catalog(
        tuple(
            replace(entry, split="val") if entry.subject in names else entry
            for entry in small.catalog.entries
        )
    )
    section = Finetune(steps=2, batch_size=2, overlap=0, decoder=Light(), largest_component="auto")
    section = section.model_copy(update={"keep_predictions": "first seed"})
    starts = {"pretrained": "of a test"}
    context = replace(small, catalog=catalog).context(
        tmp_path, evaluate=ALL, initializations=starts
    )
    results = run_finetune(VOXELS, section, context)
    assert any("Dice of 2 subjects who are neither" in note for note in results.notes)
    cell = Cell(Full().name, "pretrained", 0, 0)
    chosen = read_cell(cell.path(tmp_path)).largest_components
    assert set(chosen) <= {1, 2}
    settled = settled_section(SavedNetwork(cell, Full(), section, tmp_path))
    assert settled.largest_component == chosen
    for path in (tmp_path / "predictions").rglob("*.nii.gz"):
        values = np.asarray(nib.load(path).dataobj)
        for index in chosen:
            value = list(VOXELS.class_values)[index - 1]
            assert scipy.ndimage.label(values == value)[1] <= 1
