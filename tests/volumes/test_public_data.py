"""Public data sets with their quirks, where they are present."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.inventory import build_inventory
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.visits.frames import RegistrationLog


@pytest.fixture
def pseudonyms(tmp_path):
    return PseudonymStore(tmp_path, "study", Path())


def inventory_of(root, pseudonyms):
    return build_inventory(
        Data.model_validate({"roots": [root]}), QualityThresholds(), Path(), pseudonyms
    )


def test_pairs_of_one_subject_never_part_and_orphans_are_reported(
    public_data, pseudonyms, tmp_path
):
    few = re.compile(r"hippocampus_(0[0-3]|11|28)\d\.nii\.gz")
    for path in (public_data / "hippocampus").glob("*/*.nii.gz"):
        if few.fullmatch(path.name):
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / path.parent.name)
    inventory = inventory_of(
        {
            "path": str(tmp_path / "images"),
            "modality": "MR",
            "subject": {"pattern": r"hippocampus_(?P<id>\d+)", "expression": "(id + 1) // 2"},
            "labels": {"parts": {"path": str(tmp_path / "labels")}},
        },
        pseudonyms,
    )
    assert len(inventory.accepted_scans) == 31
    assert len({scan.subject for scan in inventory.scans}) == 22
    assert sum(bool(scan.labels["parts"]) for scan in inventory.scans) == 30
    (alone,) = [pseudonyms.origins[s.id].path for s in inventory.scans if not s.labels["parts"]]
    assert "118" in alone
    lost = sorted(Path(pseudonyms.origins[scan.id].path).name for scan in inventory.orphan_labels)
    assert [name.split("_")[1][:3] for name in lost] == ["010", "281"]
    splits = {(scan.subject, scan.split) for scan in inventory.scans}
    assert len(splits) == 22
    assert set(Counter(split for _, split in splits)) == {"train", "val", "test"}


def test_planning_scans_with_missing_values_are_accepted(public_data, pseudonyms):
    inventory = inventory_of(
        {
            "path": str(public_data / "openkbp" / "images"),
            "modality": "CT",
            "include": "pt_1[0-3].*",
            "intensity_offset": -1024,
            "missing_value": 0,
            "subject": {"pattern": r"pt_(?P<id>\d+)"},
            "labels": {"organs": {"path": str(public_data / "openkbp" / "labels")}},
        },
        pseudonyms,
    )
    assert len(inventory.accepted_scans) == len(inventory.scans) == 4
    assert all(scan.labels["organs"] for scan in inventory.accepted_scans)
    assert {scan.missing_value for scan in inventory.accepted_scans} == {0}


def test_dicom_series_good_and_broken(public_data, pseudonyms):
    inventory = inventory_of(
        {"path": str(public_data / "dicom"), "exclude": ["*ground_truth*"]}, pseudonyms
    )
    good = [
        scan
        for scan in inventory.accepted_scans
        if "mr_brain_normal" in pseudonyms.origins[scan.id].path
    ]
    assert len(good) == len(inventory.accepted_scans) == 3
    assert {(scan.modality, scan.shape) for scan in good} == {("MR", (280, 320, 22))}
    assert sorted(scan.sequence for scan in good) == ["FLAIR", "T1c", "T2"]
    places = {scan.id: pseudonyms.origins[scan.id].path for scan in inventory.scans}
    reasons = {places[s.id].partition("broken/")[2]: s.reason for s in inventory.scans}
    assert "gaps of 5 to 10 mm" in reasons["sliceincrement/001"]
    assert "gaps of 0.7497 to 1.499 mm" in reasons["sliceincrement/002"]
    assert "only 2 voxels" in reasons["sliceorientation/001"]
    assert "only 2 voxels" in reasons["slicecount/001"]
    assert "only 4 voxels" in reasons["gantrytilting/001"]


def test_series_of_one_visit_share_a_frame_and_lie_together(public_data, pseudonyms, tmp_path):
    root = {
        "path": str(public_data / "dicom" / "mr_brain_normal"),
        "subject": {"header": "PatientID"},
    }
    scans = build_inventory(
        Data.model_validate({"roots": [root]}),
        QualityThresholds(),
        Path(),
        pseudonyms,
        registrations=RegistrationLog(tmp_path / "registrations.jsonl"),
    ).scans
    assert len({scan.visit for scan in scans}) == len({scan.frame for scan in scans}) == 1
    assert scans[0].visit and scans[0].frame
    assert {scan.reason for scan in scans} == {""}
