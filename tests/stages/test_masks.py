"""Masks of a study: where they are stored, and what a new one changes."""

import nibabel as nib
import numpy as np
import pytest
import torch
import zarr

from ssl_pipeline.preprocess.prepare import ANONYMISED, FOREGROUND
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.views.sampler import Sampler
from stages.core.study_file import load_study
from tests.stages.conftest import run_cli


def prepared(study):
    for name in ("inventory", "preprocess"):
        done = run_cli(name, "--config", study)
        assert done.returncode == 0, done.stderr
    return done.stdout


def stored(study):
    """The mask bits (z, y, x) of each person's volume."""
    study = load_study(study)
    folder = study.folder / "preprocess" / "volumes"
    return {
        study.pseudonyms.origins[path.stem].subject_name: zarr.open(path, mode="r")[1]
        for path in folder.glob("*.zarr")
    }


@pytest.fixture
def masked(study_file):
    """The tiny study, whose bright tissue was anonymised and whose body is all that is labelled."""
    labels = "labels:\n        tissue:\n          path: {0}/raw/labels\n"
    labels = labels.format(study_file.parent)
    text = study_file.read_text()
    assert labels in text
    more = f"        bright:\n          path: {study_file.parent}/raw/bright\n"
    masks = "      masks: {foreground: tissue, anonymised: bright}\n"
    study_file.write_text(text.replace(labels, labels + more + masks))
    for path in sorted((study_file.parent / "raw/labels").glob("*")):
        if "person3" not in path.name:
            label = nib.load(path)
            bright = (np.asarray(label.dataobj) == 2).astype(np.uint8)
            there = study_file.parent / "raw/bright" / path.name
            there.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(bright, label.affine), there)
    return study_file


def test_masks_go_from_labels_to_the_store_and_a_new_one_remakes_its_volume_alone(masked):
    prepared(masked)
    bits = stored(masked)
    for name, of in bits.items():
        anonymised = np.count_nonzero(of & ANONYMISED)
        assert (anonymised == 0) == (name == "3")
        assert np.count_nonzero(of & FOREGROUND) > anonymised
        assert not np.any((of & ANONYMISED > 0) & (of & FOREGROUND == 0))
    label = masked.parent / "raw/bright/person1.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((34, 34, 24), np.uint8), nib.load(label).affine), label)
    assert "6 volumes stored, 1 of them new" in prepared(masked)
    again = stored(masked)
    assert not np.any(again["1"] & ANONYMISED)
    assert all(np.array_equal(again[name], bits[name]) for name in "02345")


def test_pretraining_learns_nothing_of_what_was_anonymised(masked):
    prepared(masked)
    study = load_study(masked)
    catalog = Catalog.read(study.folder / "preprocess" / "catalog.parquet")
    entries = [entry for entry in catalog.entries if entry.labels["bright"]]
    reader = CropReader(study.folder / "preprocess" / "volumes", catalog)
    views = study.views.model_copy(update={"min_valid": 0.0})
    blocks = Sampler(entries, reader, views, (8, 8, 8), batch_size=8, seed=0).batch(0)
    batch = crop_views(blocks, views, (8, 8, 8))
    body = torch.stack(
        [
            blocks.voxels[view % 8, 1, z : z + 16, y : y + 16, x : x + 16] & FOREGROUND
            for view, (z, y, x) in enumerate(blocks.params.start.tolist())
        ]
    )
    bright = (batch.clean[:, 0] > 1.5) & (body > 0)
    assert bright.any() and not (batch.valid[bright] > 0).any()


def test_a_mask_that_is_no_label_is_refused(study_file):
    text = study_file.read_text().replace(
        "modality: MR\n", "modality: MR\n      masks: {anonymised: tisue}\n"
    )
    study_file.write_text(text)
    done = run_cli("inventory", "--config", study_file)
    assert "masks.anonymised is tisue, which is no label: did you mean tissue?" in done.stderr
