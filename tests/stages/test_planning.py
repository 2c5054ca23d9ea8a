"""A study that leaves spacing, crops and strides to the plan of its training scans."""

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.manifest import read_manifest
from ssl_pipeline.export.task_model.manifest import read_model_manifest
from ssl_pipeline.store.catalog import Catalog
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.conftest import real_volume

GRIDS = {
    "short_axis": ((40, 44, 8), (1.25, 1.25, 10.0), 6),
    "atrium": ((24, 24, 24), (1.5,) * 3, 4),
}
SPACINGS = {root: spacing[::-1] for root, (_, spacing, _) in GRIDS.items()}
STUDY = """\
name: planned
output: {folder}/out
data:
  splits: {{lists: {{test: test.txt}}, fractions: {{val: 0, test: 0}}, duplicate_threshold: null}}
  roots:
"""
ROOT = """\
    - name: {root}
      path: {folder}/{root}/images
      modality: MR
      subject: {{pattern: '{root}(?P<id>[0-9]+)'}}
      labels: {{inside: {{path: "{folder}/{root}/labels"}}}}
"""
SETTINGS = """\
quality: {min_axis_voxels: 8}
preprocess: {foreground: all, mr: {spacing_mm: auto}}
views: {crop_voxels: auto}
model: MODEL
objective: {name: mae}
training: {steps: 2, batch_size: 2, precision: fp32, device: cpu, threads: 1}
evaluate: {subjects: [2]}
finetune: {steps: 2, batch_size: 1, keep_predictions: none}
tasks:
  cavity:
    kind: segmentation
    title: Cavity
    label: inside
    classes: {1: cavity}
    roots: [atrium]
    crop_voxels: auto
"""


def write_scans(folder, root, shape, spacing, numbers):
    """Parts of a real head, on the grid of a cardiac scan, with labels of what is bright."""
    voxels, (x, y, z) = np.asarray(real_volume().dataobj), shape
    for number in numbers:
        part = np.ascontiguousarray(voxels[30 + number : 30 + number + x, 20 : 20 + y, :z])
        for kind, data in (("images", part), ("labels", (part > 300).astype(np.uint8))):
            path = folder / root / kind / f"{root}{number}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.diag([*spacing, 1.0])), path)


@pytest.fixture
def study_file(tmp_path):
    def write(model):
        for root, (shape, spacing, count) in GRIDS.items():
            write_scans(tmp_path, root, shape, spacing, range(count))
        (tmp_path / "test.txt").write_text("4\n3\n")
        roots = "".join(ROOT.format(folder=tmp_path, root=root) for root in GRIDS)
        path = tmp_path / "planned.yaml"
        settings = SETTINGS.replace("MODEL", model)
        path.write_text(STUDY.format(folder=tmp_path) + roots + settings)
        return path

    return write


def run(path, *stages):
    for name in stages:
        run_stage(name, load_study(path), {"task": "cavity"} if name == "finetune" else {})
    return load_study(path)


def test_spacing_crops_and_strides_are_planned_from_the_training_scans(study_file):
    path = study_file("{name: resenc, patch_voxels: auto}")
    unplanned = load_study(path)
    study = run(path, "inventory", "preprocess")
    stored = Catalog.read(study.folder / "preprocess/catalog.parquet").entries
    assert {entry.root: entry.spacing_mm for entry in stored} == SPACINGS
    # 44 and 40 voxels are halved three times; 8 thick slices never, nor convolved before the end.
    assert study.views.crop_voxels == (8, 48, 40)
    assert study.model.strides == ((1, 1, 1), *[(1, 2, 2)] * 3)
    assert study.model.kernel_sizes == (*[(1, 3, 3)] * 3, (3, 3, 3))
    assert study.tasks["cavity"].crop_voxels == (24, 24, 24)
    with pytest.raises(UserError, match="settings that are auto, and no plan"):
        run_stage("pretrain", unplanned, {})


def test_a_given_spacing_beats_the_plan_and_new_scans_do_not_change_it(study_file):
    path = study_file("{patch_voxels: auto}")
    given = "spacing_mm: auto, spacing_by_root: {atrium: [3, 1.5, 1.5]}"
    path.write_text(path.read_text().replace("spacing_mm: auto", given))
    before = run(path, "inventory")
    assert before.preprocess.mr.spacing_mm == SPACINGS["short_axis"]
    assert before.preprocess.mr.spacing_by_root == {"atrium": (3.0, 1.5, 1.5)}
    assert before.model.patch_voxels == (2, 16, 16) and before.views.crop_voxels == (8, 48, 48)
    assert before.tasks["cavity"].crop_voxels == (12, 32, 32)
    write_scans(path.parent, "short_axis", (40, 44, 8), (1.25, 1.25, 5.0), range(6, 13))
    after = run(path, "inventory")
    assert after.preprocess == before.preprocess and after.views == before.views
    path.write_text(path.read_text() + "plan: {number: 2}\n")
    assert run(path, "inventory").preprocess.mr.spacing_mm == (5.0, 1.25, 1.25)


def test_a_spacing_of_no_root_is_refused(study_file):
    path = study_file("{patch_voxels: auto}")
    given = "spacing_mm: auto, spacing_by_root: {atriun: [3, 1.5, 1.5]}"
    path.write_text(path.read_text().replace("spacing_mm: auto", given))
    with pytest.raises(UserError, match=r"mr.spacing_by_root names atriun: did you mean atrium"):
        load_study(path)


@pytest.mark.kill
@pytest.mark.parametrize("model", ["{name: resenc, patch_voxels: auto}", "{patch_voxels: auto}"])
def test_a_planned_study_is_pretrained_and_fine_tuned(study_file, model):
    path = study_file(model)
    study = run(path, "inventory", "preprocess", "pretrain", "finetune")
    encoder = read_manifest(study.encoder)
    assert encoder.model == study.model and encoder.crop_voxels == study.views.crop_voxels
    assert encoder.preprocess.mr.spacing_by_root == {"atrium": SPACINGS["atrium"]}
    cavity = read_model_manifest(study.folder / "finetune/cavity/model")
    assert cavity.preprocess.mr.spacing_mm == SPACINGS["atrium"]
    assert cavity.crop_voxels == study.tasks["cavity"].crop_voxels
