"""Review decisions: they reject any scan, and accept what only a threshold rejected."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.fingerprint import decisions_fingerprint
from ssl_pipeline.volumes.quality_control import QualityThresholds, ScanQuality, check_quality
from ssl_pipeline.volumes.review import Decision, read_decisions
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.inventory_helpers import build, by_name, data_of

LINE = {
    "format": 1,
    "scan": "0123456789ab",
    "verdict": "accept",
    "reason": "short field of view on purpose",
    "reviewer": "reader 2",
    "time": "2026-03-01T10:00:00+01:00",
}
STRICT = QualityThresholds(min_axis_voxels=30)  # the scans have 25


def decide(folder, *decisions):
    """Append decisions to the record, as a reviewer's tool does."""
    with open(folder / "decisions.jsonl", "a") as file:
        for changes in decisions:
            file.write(json.dumps(LINE | changes) + "\n")


def reviewed(folder):
    data = data_of(folder)
    return data.model_copy(update={"decisions": "decisions.jsonl"})


@pytest.fixture
def accept():
    return Decision.model_validate(LINE)


def test_an_empty_record_changes_nothing(folder):
    before = build(data_of(folder), folder)
    decide(folder)
    assert build(reviewed(folder), folder) == before


def test_a_rejection_overrides_acceptance_with_its_reason(folder):
    before = build(data_of(folder), folder)
    scan = by_name(folder, before)["s_01.nii.gz"]
    decide(folder, {"scan": scan.id, "verdict": "reject", "reason": "metal"})
    rejected = by_name(folder, build(reviewed(folder), folder, before))["s_01.nii.gz"]
    assert (rejected.quality, rejected.reason) == ("rejected", "rejected in review: metal")


def test_an_acceptance_lifts_a_threshold_and_the_scan_is_then_like_any_other(folder):
    before = build(data_of(folder), folder, thresholds=STRICT)
    assert not before.accepted_scans and not before.keypoints
    scan = by_name(folder, before)["s_01.nii.gz"]
    decide(folder, {"scan": scan.id})
    after = build(reviewed(folder), folder, before, STRICT)
    (accepted,) = after.accepted_scans
    assert accepted.id == scan.id and set(after.keypoints) == {scan.id}
    assert accepted.reason == (
        "accepted in review (short field of view on purpose), against: only 25 voxels along its"
        " shortest axis; 30 are needed"
    )
    after.write(folder / "a.parquet")
    assert type(after).read(folder / "a.parquet") == after


def test_an_acceptance_does_not_make_a_broken_file_usable(folder):
    os.truncate(folder / "raw" / "s_01.nii.gz", 9000)
    before = build(data_of(folder), folder)
    scan = by_name(folder, before)["s_01.nii.gz"]
    decide(folder, {"scan": scan.id})
    after = by_name(folder, build(reviewed(folder), folder, before))["s_01.nii.gz"]
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
    decide(folder, {"scan": first.id, "verdict": "reject"})
    after = by_name(folder, build(reviewed(folder), folder, before))
    assert after["s_01.nii.gz"].quality == "rejected"
    assert after["s_02.nii.gz"].repair == "as it was said before"


def test_the_last_decision_counts_and_every_one_changes_the_fingerprint(folder):
    before = build(data_of(folder), folder)
    scan = before.scans[0]
    hashes = [decisions_fingerprint(data_of(folder), folder)]
    for verdict in ("reject", "accept"):
        decide(folder, {"scan": scan.id, "verdict": verdict})
        hashes.append(decisions_fingerprint(reviewed(folder), folder))
    assert hashes[0] == "" and len(set(hashes)) == 3
    assert build(reviewed(folder), folder).scans[0].quality == "accepted"


def test_a_decision_on_an_unknown_scan_is_refused(folder):
    decide(folder, {})
    with pytest.raises(UserError, match="no scan of this study is called 0123456789ab"):
        build(reviewed(folder), folder)


@pytest.mark.parametrize(
    "tail, message",
    [
        (json.dumps(LINE)[:40], "line 2: the line is torn"),
        (json.dumps(LINE), "line 2: the line is torn"),
        ("nothing\n", "line 2: is no JSON object"),
        ("\n", "line 2: is no JSON object"),
        (
            json.dumps(LINE)[:-1] + ', "verdict": "accept"}\n',
            "no JSON object that has each key once",
        ),
        (json.dumps(LINE | {"verdict": "maybe"}) + "\n", "line 2: verdict is 'maybe'"),
        (json.dumps(LINE | {"format": 2}) + "\n", "line 2: format is 2"),
        (json.dumps(LINE | {"reasons": "x"}) + "\n", "line 2: reasons is not known: did you mean"),
        (json.dumps(LINE | {"time": "2026-03-01T10:00"}) + "\n", "line 2: time is "),
    ],
)
def test_a_bad_line_is_one_sentence_that_names_it(tmp_path, tail, message):
    path = tmp_path / "decisions.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + tail)
    with pytest.raises(UserError, match=message) as error:
        read_decisions(path)
    assert len(str(error.value).splitlines()) == 1


def test_an_absent_record_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"data.decisions: there is no file .*decisions.jsonl"):
        read_decisions(tmp_path / "decisions.jsonl")
