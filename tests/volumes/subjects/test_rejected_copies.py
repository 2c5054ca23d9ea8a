"""A copy that is rejected, for whatever reason, moves no other scan to another subject or split."""

import os

import numpy as np
import pytest

from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.review import NO_DECISIONS, Decisions, pair_sha256
from tests.volumes.inventory_helpers import (
    build,
    by_person,
    data_of,
    decide,
    of_people,
    with_noise,
)
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


REJECTIONS = {
    "damaged": lambda file, scan: os.truncate(file, 5000),
    "a link to nothing": break_link,
    "a link in a circle": circle,
    "blank": lambda file, scan: save_nifti(file, np.zeros((34, 34, 20), "f4"), np.eye(4)),
    "reviewed": lambda file, scan: None,
    "below a threshold": lambda file, scan: None,
}


@pytest.mark.parametrize("why", REJECTIONS)
def test_a_near_duplicate_that_is_rejected_moves_nobody(why, people):
    data = of_people(people, seed=SEED)
    alone = by_person(people, build(data, people.folder))
    noise = np.random.default_rng(0).normal(0, 10, (34, 34, 20))
    part = (people.parts[2][:, :, :20] + noise).astype("f4")
    file = save_nifti(people.folder / "raw" / f"p_{COPY}" / "scan.nii", part, people.affine)
    inventory = build(data, people.folder)
    before = by_person(people, inventory)
    assert before["2"].subject == before[COPY].subject != alone["2"].subject
    assert before["2"].split != alone["2"].split
    REJECTIONS[why](file, before[COPY])
    decisions = decide(before[COPY], "reject") if why == "reviewed" else NO_DECISIONS
    for _ in range(2):  # also where it was rejected before
        thresholds = SMALL if why == "below a threshold" else None
        inventory = build(data, people.folder, inventory, thresholds, decisions)
        after = by_person(people, inventory)
        assert after[COPY].quality == "rejected" and after[COPY].subject == before[COPY].subject
        for name in alone:
            assert after[name].quality == "accepted"
            assert (after[name].subject, after[name].split) == (
                before[name].subject, before[name].split
            )  # fmt: skip


def test_a_copy_that_a_reader_rejects_links_its_subject_in_a_new_inventory_too(people):
    data = of_people(people)
    people.add(f"p_{COPY}", 2)
    before = by_person(people, build(data, people.folder))
    decisions = decide(before[COPY], "reject")
    after = by_person(people, build(data, people.folder, decisions=decisions))
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


def test_a_pair_that_a_reader_found_distinct_is_two_subjects_until_one_changes(people):
    data = of_people(people)
    people.add("p_copy", 2)
    before = by_person(people, build(data, people.folder))
    joined = [before["2"], before["copy"]]
    assert joined[0].subject == joined[1].subject
    (copy,) = (scan for scan in joined if scan.copy_of)
    assert {copy.id, copy.copy_of} == {scan.id for scan in joined}
    seen = pair_sha256(scan.sha256 for scan in joined)
    for sha256, subjects in ((seen, 2), ("0" * 64, 1)):
        decisions = Decisions({}, {frozenset(scan.id for scan in joined): sha256})
        after = by_person(people, build(data, people.folder, decisions=decisions))
        assert len({after[name].subject for name in ("2", "copy")}) == subjects
        assert {after[name].copy_of for name in ("2", "copy")} == {"", copy.copy_of}
