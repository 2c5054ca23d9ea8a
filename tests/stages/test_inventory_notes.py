"""What inventory and preprocess say of a small study beyond its rows, and what they leave."""

import os

import nibabel
import numpy as np

from ssl_pipeline.volumes.check_journal import JOURNAL_FILE
from ssl_pipeline.volumes.inventory import Inventory
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.volumes.volume_writers import save_nifti


def test_a_label_that_the_crop_cuts_is_said_by_the_stage(study_file, capsys):
    raw = study_file.parent / "raw"
    for path in sorted((raw / "images").iterdir()):
        image = nibabel.load(path)
        body = np.zeros(image.shape, "u1")
        body[:17] = 1  # half of what the label tissue outlines
        save_nifti(raw / "body" / path.name, body, image.affine)
    more = f"        body:\n          path: {raw}/body\n      masks: {{foreground: body}}\n"
    text = study_file.read_text().replace("  splits:\n", more + "  splits:\n", 1)
    study_file.write_text(text.replace("foreground: all", "margin_voxels: 0"))
    study = load_study(study_file)
    for name in ("inventory", "preprocess"):
        run_stage(name, study, {})
    said = capsys.readouterr().out
    assert "preprocess: the label tissue of 6 volumes reaches out of the crop" in said
    assert "the label body" not in said


def test_a_copy_that_is_damaged_moves_its_twin_to_no_other_subject_or_split(study_file, capsys):
    raw = study_file.parent / "raw" / "images"
    twin, copy = raw / "person4.nii.gz", raw / "person0copy.nii.gz"  # 4 is held out for test
    copy.write_bytes(twin.read_bytes())
    study = load_study(study_file)
    table = study.folder / "inventory" / "scans.parquet"
    run_stage("inventory", study, {})
    before = {scan.id: scan for scan in Inventory.read(table).scans}
    assert "1 of 6 accepted scans have no label tissue that fits" in capsys.readouterr().out
    os.truncate(copy, 3000)
    run_stage("inventory", study, {})
    after = {scan.id: scan for scan in Inventory.read(table).scans}
    assert [scan.quality for scan in after.values()].count("rejected") == 1
    for name, scan in after.items():
        assert (scan.subject, scan.split) == (before[name].subject, before[name].split)
    assert not (table.parent / JOURNAL_FILE).exists()
    assert "have no label tissue" not in capsys.readouterr().out  # the twin is used, and has one
