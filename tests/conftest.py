"""Real small volumes that ship inside installed packages, laid out as a user's raw folder."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.testing import data_path

from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from stages.core.runner import run_stage
from stages.core.study_file import load_study

SCAN_COUNT = 6  # one functional MR is cut into as many "people": real, small, all of one kind


# The files that take longest begin first, so that no worker waits for the last of them alone.
LONG = ("workflows/test_snakemake", "stages/test_", "evaluation/test_", "training/test_")


def pytest_collection_modifyitems(items):
    def place(item):
        return next((n for n, name in enumerate(LONG) if name in str(item.path)), len(LONG))

    items.sort(key=place)


def real_volume() -> nib.Nifti1Image:
    """A whole-head MR of 128 x 96 x 24 voxels at 2 x 2 x 2.2 mm, from nibabel's own tests."""
    whole = nib.load(Path(data_path) / "example4d.nii.gz")
    return nib.Nifti1Image(np.asarray(whole.dataobj)[..., 0], whole.affine)


def write_scans(folder: Path, count: int = SCAN_COUNT) -> list[Path]:
    """Parts of a real head as `personN.nii.gz`, with labels of its bright and dark inside."""
    image = real_volume()
    voxels = np.asarray(image.dataobj)
    made = []
    for number in range(count):
        x, y = 30 + 34 * (number % 2) - number // SCAN_COUNT, 6 + 26 * (number % SCAN_COUNT // 2)
        part = np.ascontiguousarray(voxels[x : x + 34, y : y + 34])
        affine = image.affine.copy()
        affine[:3, 3] = nib.affines.apply_affine(image.affine, (x, y, 0))
        path = folder / "images" / f"person{number}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(part, affine), path)
        label = np.where(part > 450, 2, np.where(part > 150, 1, 0)).astype(np.uint8)
        there = folder / "labels" / path.name
        there.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(label, affine), there)
        made.append(path)
    return made


STUDY = """\
name: tiny
output: {folder}/out
data:
  roots:
    - name: head
      path: {folder}/raw/images
      modality: MR
      subject:
        pattern: person(?P<id>\\d+)
      targets:
        side:
          pattern: person(?P<id>\\d+)
          expression: id % 2
      labels:
        tissue:
          path: {folder}/raw/labels
  splits:
    duplicate_threshold: null  # the people are parts of one head
    lists:
      test: test.txt
    fractions: {{val: 0, test: 0}}
quality: {{min_axis_voxels: 8}}
preprocess: {{foreground: all}}
views: {{crop_voxels: [16, 16, 16]}}
model: {{patch_voxels: [8, 8, 8]}}
dask: {{workers: 1}}
training:
  steps: 6
  batch_size: 4
  precision: fp32
  device: cpu
  threads: 1
  checkpoint_every: 2
  log_every: 2
evaluate: {{subjects: [0], confidence: 0.9}}
finetune: {{steps: 2, batch_size: 4}}
tasks:
  side:
    kind: classification
    title: Side
    target: side
    classes: {{0: left, 1: right}}
  tissue:
    kind: segmentation
    title: Tissue
    label: tissue
    classes: {{1: dark, 2: bright}}
"""


def write_study(folder: Path) -> Path:
    """A raw folder of real scans, and the study of it; returns the study's file."""
    write_scans(folder / "raw")
    (folder / "test.txt").write_text("4\n5\n")
    study = folder / "tiny.yaml"
    study.write_text(STUDY.format(folder=folder))
    return study


def read_json(path):
    """The content of a JSON file."""
    return json.loads(path.read_text())


def crash_at_step(run, step):
    """Train a run until this step, in which the machine dies."""

    def die(done):
        if done == step:
            raise RuntimeError("the machine dies here")

    with pytest.raises(RuntimeError, match="dies here"):
        run.train(on_step=die)


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return write_study(tmp_path)


@pytest.fixture
def open_umask():
    """A shell that lets everybody write into what is made."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """The tiny study, preprocessed."""
    study = load_study(write_study(tmp_path_factory.mktemp("tiny")))
    for name in ("inventory", "preprocess"):
        run_stage(name, study, {})
    return study


@pytest.fixture(scope="session")
def catalog(study):
    return Catalog.read(study.folder / "preprocess" / "catalog.parquet")


@pytest.fixture(scope="session")
def reader(study, catalog):
    return CropReader(study.folder / "preprocess" / "volumes", catalog)
