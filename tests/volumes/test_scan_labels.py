"""Labels of scans in the inventory: which image they belong to, and which cannot be used."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.review import Decision, Decisions, label_item, pair_sha256
from tests.volumes.inventory_helpers import build, by_name, data_of, pseudonyms_of, with_noise
from tests.volumes.volume_writers import save_nifti


@pytest.fixture
def labelled(folder, brain):
    for number in (1, 2, 3, 9):
        mask = (brain.data > 5000).astype(np.uint8)
        save_nifti(folder / "seg" / f"s_{number:02}.nii.gz", mask, brain.affine)
    return folder


def test_labels_find_their_images_and_orphans_are_reported(labelled):
    data = data_of(labelled, labels={"organ": {"path": str(labelled / "seg")}})
    inventory = build(data, labelled)
    scans = by_name(labelled, inventory)
    assert scans["s_01.nii.gz"].labels == {"organ": True}
    file = pseudonyms_of(labelled).label_path(scans["s_01.nii.gz"].id, "organ")
    assert file == labelled / "seg" / "s_01.nii.gz"
    assert scans["s_05.nii.gz"].labels == {"organ": False}
    assert len(inventory.accepted_scans) == 6
    (orphan,) = inventory.orphan_labels
    assert pseudonyms_of(labelled).origins[orphan.id].path.endswith("s_09.nii.gz")
    assert orphan.reason == "label without image"
    inventory.write(labelled / "a.parquet")
    assert Inventory.read(labelled / "a.parquet") == inventory
    row = pq.read_table(labelled / "a.parquet").to_pylist()[-1]
    assert (row["quality"], row["format"], row["reason"]) == (
        "rejected",
        "label",
        "label without image",
    )


def test_a_label_of_another_shape_is_dropped_with_a_note(labelled, brain):
    seg = labelled / "seg"
    save_nifti(seg / "s_02.nii.gz", np.zeros((33, 41, 24), np.uint8), brain.affine)
    save_nifti(seg / "s_03.nii.gz", np.zeros((33, 41, 25), np.uint8), np.diag([2.0, 2, 2, 1]))
    (seg / "s_01.nii.gz").write_bytes(b"nothing")
    scans = by_name(
        labelled, build(data_of(labelled, labels={"organ": {"path": str(seg)}}), labelled)
    )
    notes = {
        "s_01.nii.gz": "label organ was dropped",
        "s_02.nii.gz": "label organ has another shape, 33 x 41 x 24 for an image of 33 x 41 x 25",
        "s_03.nii.gz": "label organ lies in another place",
    }
    for name, note in notes.items():
        assert note in scans[name].reason
        assert scans[name].quality == "accepted"
        assert scans[name].labels == {"organ": False}


UNUSABLE_LABELS = {
    "s_01.nii.gz": (lambda mask: mask * np.float32(0.9999999), "A label holds fractions"),
    "s_02.nii.gz": (lambda mask: np.where(mask, 1, -1), "A label holds values from -1 to 1"),
    "s_03.nii.gz": (lambda mask: np.where(mask, 1, np.nan), "A label holds NaN"),
    "s_04.nii.gz": (lambda mask: mask * 40000, "A label holds values from 0 to 40000"),
    "s_06.nii.gz": (np.ones_like, "A label is 1 everywhere"),
}


def test_a_label_whose_values_are_no_classes_is_dropped_with_a_note(folder, brain):
    seg = folder / "seg"
    for name, (change, _) in UNUSABLE_LABELS.items():
        save_nifti(seg / name, change(brain.data > 5000).astype("f4"), brain.affine)
    cut = save_nifti(seg / "s_05.nii", (brain.data > 5000).astype("i2"), brain.affine)
    os.truncate(cut, 9000)
    labels = {"organ": {"path": str(seg)}}
    scans = by_name(folder, build(data_of(folder, labels=labels), folder))
    notes = {
        name: f"label organ was dropped: {note}" for name, (_, note) in UNUSABLE_LABELS.items()
    }
    notes["s_05.nii.gz"] = "label organ was dropped: cannot be read as NIfTI"
    for name, note in notes.items():
        assert scans[name].quality == "accepted" and not scans[name].labels["organ"]
        assert scans[name].reason.startswith(note)


def test_a_mask_may_hold_any_values(folder, brain):
    save_nifti(folder / "seg" / "s_01.nii", brain.data.astype("f4") / 7, brain.affine)
    data = data_of(
        folder, labels={"body": {"path": str(folder / "seg")}}, masks={"foreground": "body"}
    )
    assert by_name(folder, build(data, folder))["s_01.nii.gz"].labels == {"body": True}


def test_a_label_in_other_axis_order_fits(labelled, brain):
    turned = np.transpose(np.zeros((33, 41, 25), np.uint8), (2, 0, 1))
    affine = brain.affine[:, [2, 0, 1, 3]]
    save_nifti(labelled / "seg" / "s_02.nii.gz", turned, affine)
    scans = by_name(
        labelled, build(data_of(labelled, labels={"o": {"path": str(labelled / "seg")}}), labelled)
    )
    assert scans["s_02.nii.gz"].labels["o"]


def test_labels_beside_their_images_are_no_images(brain, tmp_path):
    mask = (brain.data > 5000).astype(np.uint8)
    for number, who in enumerate(("p_1", "p_2")):
        save_nifti(tmp_path / "raw" / who / "ct_0000.nii", with_noise(brain, number), brain.affine)
        save_nifti(tmp_path / "raw" / who / "masks" / "liver.nii", mask, brain.affine)
        save_nifti(tmp_path / "raw" / who / "ct_seg.nii", mask, brain.affine)
    raw = str(tmp_path / "raw")
    labels = {
        "liver": {"path": raw, "pattern": "{folder}/masks/liver.nii"},
        "all": {"path": raw, "image_pattern": "(?P<case>.*)_0000", "pattern": "{case}_seg"},
    }
    inventory = build(data_of(tmp_path, labels=labels), tmp_path)
    assert len(inventory.scans) == 2
    assert not inventory.orphan_labels
    for scan in inventory.scans:
        assert scan.labels == {"liver": True, "all": True}
        files = pseudonyms_of(tmp_path).origins[scan.id].labels.values()
        assert {os.path.basename(path) for path in files} == {"liver.nii", "ct_seg.nii"}


def decided_on(folder, verdicts, seen=""):
    """Decisions of a reader on the labels "organ" of scans, by the verdict on each."""
    code = pseudonyms_of(folder).code
    return Decisions(
        labels={
            label_item(scan.id, "organ", code): Decision(
                verdict,
                "orientation",
                "reader2",
                seen or pair_sha256((scan.sha256, scan.label_checks["organ"]["sha256"])),
            )
            for scan, verdict in verdicts
        }
    )


def test_a_label_is_used_or_not_as_a_reader_says_until_one_of_both_changes(labelled, brain):
    seg = labelled / "seg"
    save_nifti(seg / "s_02.nii.gz", np.zeros((33, 41, 25), np.uint8), brain.affine)
    cropped = (brain.data[:, :, :20] > 5000).astype(np.uint8)
    save_nifti(seg / "s_03.nii.gz", cropped, brain.affine)
    data = data_of(labelled, labels={"organ": {"path": str(seg)}}, masks={"foreground": "organ"})
    before = by_name(labelled, build(data, labelled))
    fits, empty, off = (before[f"s_{number:02}.nii.gz"] for number in (1, 2, 3))
    assert [scan.label_checks["organ"]["verdict"] for scan in (fits, empty, off)] == [
        "fits", "empty", "off_grid",
    ]  # fmt: skip
    verdicts = [(fits, "reject"), (empty, "reject"), (off, "accept")]
    after = by_name(labelled, build(data, labelled, decisions=decided_on(labelled, verdicts)))
    for name, is_used, note in (
        ("s_01.nii.gz", False, "label organ was rejected in review by reader2 (orientation)"),
        ("s_02.nii.gz", False, "label organ was rejected in review by reader2 (orientation)"),
        ("s_03.nii.gz", True, "accepted in review by reader2 (orientation), against: label organ"),
    ):
        scan = after[name]
        assert scan.labels == {"organ": is_used} and note in scan.reason
        assert scan.label_checks == before[name].label_checks, "it is asked as before"
        assert not scan.masks, "a mask is taken voxel by voxel"
    assert after["s_03.nii.gz"].label_classes == {"organ": [1]}
    void = build(data, labelled, decisions=decided_on(labelled, verdicts, "0" * 64))
    assert by_name(labelled, void) == before


def test_no_reader_makes_a_label_usable_whose_values_are_no_classes(labelled, brain):
    save_nifti(labelled / "seg" / "s_01.nii.gz", brain.data.astype("f4") / 7, brain.affine)
    data = data_of(labelled, labels={"organ": {"path": str(labelled / "seg")}})
    assert by_name(labelled, build(data, labelled))["s_01.nii.gz"].label_checks == {}
