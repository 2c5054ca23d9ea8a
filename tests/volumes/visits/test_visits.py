"""Visits and frames: where they come from, whom they span, and that no UID is in the table."""

import json

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.config import Root
from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.root_notes import root_notes
from tests.volumes.inventory_helpers import build, data_of, with_noise
from tests.volumes.volume_writers import save_dicom, save_nifti

STUDY, FRAME = "1.2.333", "1.2.444"


def save_series(folder, brain, name, number, patient="Ann", study=STUDY, **tags):
    ids = {"PatientID": patient, "StudyInstanceUID": study, "FrameOfReferenceUID": FRAME}
    return save_dicom(folder / "raw" / name, with_noise(brain, number), brain.affine, **ids | tags)


def of_patients(folder):
    return build(data_of(folder, subject={"header": "PatientID"}), folder)


def test_series_of_one_study_share_visit_and_frame_and_the_table_has_no_uid(brain, tmp_path):
    save_series(tmp_path, brain, "a", 0)
    save_series(tmp_path, brain, "b", 1)
    save_series(tmp_path, brain, "c", 2, study=STUDY + ".9", FrameOfReferenceUID=FRAME + ".9")
    inventory = of_patients(tmp_path)
    a, b, c = inventory.scans
    assert a.visit == b.visit and a.frame == b.frame
    assert len({a.visit, c.visit, a.frame, c.frame, a.subject}) == 5
    inventory.write(tmp_path / "scans.parquet")
    again = Inventory.read(tmp_path / "scans.parquet")
    assert again == inventory
    text = json.dumps([vars(scan) for scan in again.scans], default=str)
    assert STUDY not in text and FRAME not in text


def test_a_visit_spans_no_two_subjects(brain, tmp_path):
    for number, name in enumerate("ab"):
        for sequence in ("T1", "T2"):
            path = tmp_path / "raw" / name / f"day1_{sequence}.nii"
            save_nifti(path, with_noise(brain, 2 * number + (sequence == "T2")), brain.affine)
    rules = {"subject": {"pattern": "(?P<name>[^/]+)/"}, "visit": {"pattern": r"(?P<day>day\d)"}}
    rules["frame"] = rules["visit"]
    scans = build(data_of(tmp_path, **rules), tmp_path).scans
    assert [scans[0].visit == other.visit for other in scans] == [True, True, False, False]
    assert [scans[0].frame == other.frame for other in scans] == [True, True, False, False]


def test_a_table_names_visits_before_a_header_does(brain, tmp_path):
    for number, name in enumerate("ab"):
        save_series(tmp_path, brain, name, number)
    (tmp_path / "scans.csv").write_text("path,visit,frame\nraw/a,1,x\nraw/b,2,y\n")
    data = data_of(tmp_path, subject={"header": "PatientID"})
    first, second = build(data.model_copy(update={"table": "scans.csv"}), tmp_path).scans
    assert first.visit != second.visit and first.frame != second.frame


def test_sessions_of_bids_are_visits_and_share_no_frame(brain, tmp_path):
    for number, place in enumerate(("ses-1", "ses-1", "ses-2")):
        kind = ("T1w", "T2w", "T1w")[number]
        path = tmp_path / "raw" / "sub-1" / place / "anat" / f"sub-1_{place}_{kind}.nii"
        save_nifti(path, with_noise(brain, number), brain.affine)
    scans = build(data_of(tmp_path, layout="bids", subject=None), tmp_path).scans
    assert [scan.visit == scans[0].visit for scan in scans] == [True, True, False]
    assert {scan.frame for scan in scans} == {""}
    assert [scan.sequence for scan in scans] == ["T1", "T2", "T1"]


def test_without_a_subject_there_is_no_visit(brain, tmp_path):
    save_series(tmp_path, brain, "a", 0)
    (scan,) = build(data_of(tmp_path, subject=None), tmp_path).scans
    assert (scan.visit, scan.frame) == ("", "")


def test_uids_that_many_patients_share_are_no_visit_and_no_frame(brain, tmp_path):
    for number, name in enumerate("abcd"):
        save_series(tmp_path, brain, name, number, patient=name)
    scans = of_patients(tmp_path).scans
    assert {(scan.visit, scan.frame) for scan in scans} == {("", "")}
    assert scans[0].reason == (
        "4 subjects share its StudyInstanceUID, which therefore is no visit and joins none of them;"
        " 4 subjects share its FrameOfReferenceUID, which therefore says nothing of where it lies"
    )


def test_fourteen_series_of_which_nine_are_derived_are_one_sentence(brain, tmp_path):
    for number in range(14):
        kind = ["DERIVED", "SECONDARY", "MPR"] if number >= 5 else ["ORIGINAL", "PRIMARY"]
        save_series(tmp_path, brain, f"s{number:02}", number, ImageType=kind)
    inventory = of_patients(tmp_path)
    visit = inventory.scans[0].visit
    assert len(inventory.accepted_scans) == 5
    assert [note.text for note in root_notes(inventory)] == [
        "its 5 scans are of one subject; correct its `subject` if they are not",
        f"1 of 1 visit has scans that are not used, such as visit {visit}, 9 of 14",
    ]


def test_a_visit_with_one_scan_beside_others_is_one_sentence(brain, tmp_path):
    save_series(tmp_path, brain, "a", 0)
    save_series(tmp_path, brain, "b", 1)
    save_series(tmp_path, brain, "c", 2, study=STUDY + ".9")
    inventory = of_patients(tmp_path)
    visit = inventory.scans[2].visit
    assert [note.text for note in root_notes(inventory)] == [
        f"1 of 2 visits has one usable scan, without a partner, such as visit {visit}"
    ]


@pytest.mark.parametrize("setting", ["visit", "frame"])
def test_a_header_is_for_subjects(setting):
    with pytest.raises(ValueError, match="`header` is for `subject` alone"):
        Root.model_validate({"path": "x", setting: {"header": "PatientID"}})


def test_a_table_with_visits_in_the_plural_is_asked_about(brain, tmp_path):
    save_nifti(tmp_path / "raw" / "s_1.nii", brain.data, brain.affine)
    (tmp_path / "scans.csv").write_text("path,visits\nraw/s_1.nii,1\n")
    data = data_of(tmp_path).model_copy(update={"table": "scans.csv"})
    with pytest.raises(UserError, match="has a column `visits`: call it visit"):
        build(data, tmp_path)
