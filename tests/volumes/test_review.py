"""Readers' decisions: they reject any scan, and accept what only a threshold rejected."""

import os
from dataclasses import replace

import numpy as np
import pytest

from ssl_pipeline.volumes.quality_control import QualityThresholds, ScanQuality, check_quality
from ssl_pipeline.volumes.review import Decision, Decisions
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.inventory_helpers import build, by_name, data_of, decide

STRICT = QualityThresholds(min_axis_voxels=30)  # the scans have 25


@pytest.fixture
def accept():
    return Decision("accept", "field of view", "reader2", "a" * 64)


def test_a_rejection_overrides_acceptance_and_says_whose_word_it_is(folder):
    before = build(data_of(folder), folder)
    decisions = decide(by_name(folder, before)["s_01.nii.gz"], "reject", "metal")
    after = build(data_of(folder), folder, before, decisions=decisions)
    rejected = by_name(folder, after)["s_01.nii.gz"]
    assert (rejected.quality, rejected.reason) == (
        "rejected", "rejected in review by reader2 (metal)",
    )  # fmt: skip


def test_an_acceptance_lifts_a_threshold_and_the_scan_is_then_like_any_other(folder):
    before = build(data_of(folder), folder, thresholds=STRICT)
    assert not before.accepted_scans and not before.keypoints
    scan = by_name(folder, before)["s_01.nii.gz"]
    after = build(data_of(folder), folder, before, STRICT, decide(scan, "accept", "motion"))
    (accepted,) = after.accepted_scans
    assert accepted.id == scan.id and set(after.keypoints) == {scan.id}
    assert accepted.reason == (
        "accepted in review by reader2 (motion), against: only 25 voxels along its shortest axis;"
        " 30 are needed"
    )
    after.write(folder / "a.parquet")
    assert type(after).read(folder / "a.parquet") == after


def test_a_decision_is_void_once_the_scan_holds_something_else(folder):
    before = build(data_of(folder), folder)
    decisions = decide(by_name(folder, before)["s_01.nii.gz"], "reject")
    rejected = build(data_of(folder), folder, before, decisions=decisions)
    (folder / "raw" / "s_01.nii.gz").write_bytes((folder / "raw" / "s_02.nii.gz").read_bytes())
    (folder / "raw" / "s_02.nii.gz").unlink()
    after = build(data_of(folder), folder, rejected, decisions=decisions)
    assert by_name(folder, after)["s_01.nii.gz"].quality == "accepted"


def test_an_acceptance_does_not_make_a_broken_file_usable(folder):
    os.truncate(folder / "raw" / "s_01.nii.gz", 9000)
    before = build(data_of(folder), folder)
    scan = by_name(folder, before)["s_01.nii.gz"]
    after = build(data_of(folder), folder, before, decisions=decide(scan, "accept"))
    after = by_name(folder, after)["s_01.nii.gz"]
    assert after.quality == "rejected" and after.reason == scan.reason


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_an_acceptance_does_not_make_an_image_of_nan_or_of_one_value(brain, accept, value):
    volume = Volume(np.full((4, 40, 40), value, np.float32), brain.affine)
    thresholds = QualityThresholds(min_fov_mm=20)
    assert "along its shortest axis" in check_quality(volume, None, thresholds).fault
    fault = check_quality(volume, None, thresholds, decision=accept).fault
    assert "NaN" in fault or "the same value" in fault


def test_an_acceptance_of_what_is_accepted_leaves_no_trace(brain, accept):
    assert check_quality(brain, None, QualityThresholds(), decision=accept) == ScanQuality()


def test_only_the_scan_that_was_decided_on_is_read_again(folder):
    before = build(data_of(folder), folder)
    first, second = (by_name(folder, before)[name] for name in ("s_01.nii.gz", "s_02.nii.gz"))
    marked = replace(second, repair="as it was said before", quality="repaired")
    before = replace(before, scans=(first, marked))
    after = build(data_of(folder), folder, before, decisions=decide(first, "reject"))
    after = by_name(folder, after)
    assert after["s_01.nii.gz"].quality == "rejected"
    assert after["s_02.nii.gz"].repair == "as it was said before"


def test_every_decision_changes_the_fingerprint(accept):
    decisions = [
        Decisions(),
        Decisions({"0123456789ab": accept}),
        Decisions({"0123456789ab": replace(accept, verdict="reject")}),
        Decisions({}, {frozenset(("0123456789ab", "ba9876543210")): "a" * 64}),
        Decisions(labels={"0123456789ab": accept}),
        Decisions(labels={"0123456789ab": replace(accept, sha256="b" * 64)}),
    ]
    hashes = [each.fingerprint for each in decisions]
    assert hashes[0] == "" and len(set(hashes)) == 6
