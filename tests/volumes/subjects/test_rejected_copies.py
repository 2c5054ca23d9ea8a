"""A copy that is rejected, for whatever reason, moves no other scan to another subject or split."""

import json
import os

import numpy as np
import pytest

from ssl_pipeline.volumes.quality_control import QualityThresholds
from tests.volumes.inventory_helpers import build, by_person, data_of, of_people, with_noise
from tests.volumes.volume_writers import save_dicom, save_nifti

COPY = "00zoe"  # sorts before the original, so that the subject has this name
SEED = 4  # by which this name and the original's call for different splits
SMALL = QualityThresholds(min_axis_voxels=22)  # a copy has fewer slices


def break_link(file, scan):
    file.unlink()
    file.symlink_to(file.parent / "moved")


def circle(file, scan):
    file.unlink()
    file.symlink_to(file)


def review(file, scan):
    decision = {
        "format": 1, "scan": scan.id, "verdict": "reject", "reason": "metal",
        "reviewer": "reader 2", "time": "2026-03-01T10:00:00Z",
    }  # fmt: skip
    (file.parents[2] / "decisions.jsonl").write_text(json.dumps(decision) + "\n")


REJECTIONS = {
    "damaged": lambda file, scan: os.truncate(file, 5000),
    "a link to nothing": break_link,
    "a link in a circle": circle,
    "blank": lambda file, scan: save_nifti(file, np.zeros((34, 34, 20), "f4"), np.eye(4)),
    "reviewed": review,
    "below a threshold": lambda file, scan: None,
}


@pytest.mark.parametrize("why", REJECTIONS)
def test_a_near_duplicate_that_is_rejected_moves_nobody(why, people):
    data = of_people(people, seed=SEED).model_copy(update={"decisions": "decisions.jsonl"})
    (people.folder / "decisions.jsonl").touch()
    alone = by_person(people, build(data, people.folder))
    noise = np.random.default_rng(0).normal(0, 10, (34, 34, 20))
    part = (people.parts[2][:, :, :20] + noise).astype("f4")
    file = save_nifti(people.folder / "raw" / f"p_{COPY}" / "scan.nii", part, people.affine)
    inventory = build(data, people.folder)
    before = by_person(people, inventory)
    assert before["2"].subject == before[COPY].subject != alone["2"].subject
    assert before["2"].split != alone["2"].split
    REJECTIONS[why](file, before[COPY])
    for _ in range(2):  # also where it was rejected before
        thresholds = SMALL if why == "below a threshold" else None
        inventory = build(data, people.folder, inventory, thresholds)
        after = by_person(people, inventory)
        assert after[COPY].quality == "rejected" and after[COPY].subject == before[COPY].subject
        for name in alone:
            assert after[name].quality == "accepted"
            assert (after[name].subject, after[name].split) == (
                before[name].subject, before[name].split
            )  # fmt: skip


def test_a_copy_that_a_reviewer_rejects_links_its_subject_in_a_new_inventory_too(people):
    data = of_people(people).model_copy(update={"decisions": "decisions.jsonl"})
    (people.folder / "decisions.jsonl").touch()
    file = people.add(f"p_{COPY}", 2)
    before = by_person(people, build(data, people.folder))
    review(file, before[COPY])
    after = by_person(people, build(data, people.folder))
    assert after[COPY].quality == "rejected"
    assert after["2"].subject == before["2"].subject


def test_of_two_equal_scans_the_second_takes_the_place_of_the_first_when_that_is_damaged(people):
    first = save_nifti(
        people.folder / "raw" / f"p_{COPY}" / "scan.nii", people.parts[2], people.affine
    )
    inventory = build(of_people(people, seed=SEED), people.folder)
    before = by_person(people, inventory)
    assert before["2"].reason.startswith("duplicate of")
    os.truncate(first, 5000)
    after = by_person(people, build(of_people(people, seed=SEED), people.folder, inventory))
    assert (after["2"].quality, after["2"].subject) == ("accepted", before[COPY].subject)
    assert after["2"].split == before[COPY].split
    assert [after[name] for name in "013"] == [before[name] for name in "013"]


def test_a_series_that_loses_a_slice_keeps_its_copy_where_it_was(brain, tmp_path):
    voxels = with_noise(brain, 1)
    slices = save_dicom(tmp_path / "raw" / "p_a", voxels, brain.affine)
    save_nifti(tmp_path / "raw" / "p_b" / "scan.nii", voxels, brain.affine)
    data = data_of(tmp_path, subject={"pattern": r"p_(?P<name>\w+)"})
    before = build(data, tmp_path)
    os.truncate(slices[9], 300)
    after = build(data, tmp_path, before)
    twin = after.accepted_scans[0]
    assert (twin.subject, twin.split) == (before.scans[0].subject, before.scans[0].split)


def test_blank_scans_of_two_people_make_them_no_one_person(people):
    for name in ("a", "b"):
        blank = people.folder / "raw" / f"p_{name}" / "blank.nii"
        save_nifti(blank, np.zeros((34, 34, 24), "i2"), people.affine)
    scans = by_person(people, build(of_people(people), people.folder))
    assert {scans[name].quality for name in "ab"} == {"rejected"}
    assert scans["a"].subject != scans["b"].subject
