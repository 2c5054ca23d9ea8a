"""Notes on whole roots: files that are not read, labels that lack, slices of several planes."""

import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.root_notes import root_notes
from tests.volumes.inventory_helpers import build, by_name, data_of, with_noise
from tests.volumes.volume_writers import save_nifti

UNREAD = ("b.mgz", "c.nii.zst", "d/series.zip", "d/IM.anna", "d/scan.img")


def write_unread(folder):
    for name in UNREAD:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")


def notes(inventory):
    return [tuple(note) for note in root_notes(inventory)]


UNREAD_NOTE = "5 files of no known image format (1 .img, 1 .mgz, 1 .nii.zst, 1 .zip, 1 other)"


def test_files_of_no_known_format_are_counted_by_suffix_and_kept_with_the_table(folder):
    write_unread(folder / "raw")
    inventory = build(data_of(folder), folder)
    assert notes(inventory) == [("raw", UNREAD_NOTE)]
    inventory.write(folder / "a.parquet")
    assert notes(Inventory.read(folder / "a.parquet")) == notes(inventory)


def test_files_of_a_folder_that_a_table_names_are_counted_too(folder):
    write_unread(folder / "raw")
    (folder / "scans.csv").write_text("path,modality\nraw,MR\n")
    data = Data.model_validate({"table": "scans.csv", "splits": {"duplicate_threshold": None}})
    assert notes(build(data, folder)) == [("scans", UNREAD_NOTE)]


def test_files_of_a_folder_of_labels_are_counted_once(folder, brain):
    write_unread(folder / "raw" / "seg")
    labels = {"organ": {"path": str(folder / "raw" / "seg")}}
    for number in range(1, 7):
        mask = (brain.data > 5000).astype("u1")
        save_nifti(folder / "raw" / "seg" / f"s_{number:02}.nii", mask, brain.affine)
    assert notes(build(data_of(folder, labels=labels), folder)) == [("raw", UNREAD_NOTE)]


def test_a_root_of_nothing_but_unknown_formats_says_which(tmp_path):
    write_unread(tmp_path / "raw")
    with pytest.raises(UserError, match=r"its files are \.img, \.mgz, \.nii\.zst, \.zip, other\."):
        build(data_of(tmp_path), tmp_path)


def test_scans_without_a_label_and_labels_without_a_scan_are_counted(folder, brain):
    mask = (brain.data > 5000).astype("u1")
    for name in ("s_01", "s_02", "s_99"):
        save_nifti(folder / "seg" / f"{name}.nii", mask, brain.affine)
    labels = {"organ": {"path": str(folder / "seg")}}
    inventory = build(data_of(folder, labels=labels), folder)
    first = by_name(folder, inventory)["s_03.nii.gz"].id
    orphan = inventory.orphan_labels[0].id
    assert notes(inventory) == [
        ("raw", f"4 of 6 accepted scans have no label organ that fits, such as {first}"),
        ("raw", f"1 label file without a scan, such as {orphan}"),
    ]


def test_labels_that_hold_no_class_are_counted(folder, brain):
    for name, level in (("s_01", 5000), ("s_02", 1e9)):
        save_nifti(folder / "seg" / f"{name}.nii", (brain.data > level).astype("u1"), brain.affine)
    labels = {"organ": {"path": str(folder / "seg")}}
    inventory = build(data_of(folder, labels=labels), folder)
    empty = by_name(folder, inventory)["s_02.nii.gz"].id
    assert ("raw", f"1 accepted scan has an empty label organ, such as {empty}") in notes(inventory)


@pytest.mark.parametrize("use", ["label", "mask"])
def test_a_label_that_no_scan_has_is_an_error(use, folder, brain):
    save_nifti(folder / "seg" / "other.nii", (brain.data > 5000).astype("u1"), brain.affine)
    labels = {"organ": {"path": str(folder / "seg")}}
    masks = {"foreground": "organ"} if use == "mask" else {}
    sentence = r"labels\.organ: none of the 6 scans of root raw, such as \w{12}, has a file in"
    with pytest.raises(UserError, match=sentence):
        build(data_of(folder, labels=labels, masks=masks), folder)


def test_scans_that_are_sliced_in_different_planes_are_noted(brain, tmp_path):
    for number, sides in enumerate([(2, 2, 5), (2, 2, 5), (5, 2, 2), (2, 2, 2)]):
        affine = np.diag([*map(float, sides), 1])
        save_nifti(tmp_path / "raw" / f"s_{number}.nii", with_noise(brain, number), affine)
    turned = np.transpose(with_noise(brain, 9), (2, 0, 1))  # the third axis of the file is A
    affine = np.array([[0, 2.0, 0, 0], [0, 0, 2, 0], [5, 0, 0, 0], [0, 0, 0, 1]])
    save_nifti(tmp_path / "raw" / "s_9.nii", turned, affine)
    found = notes(build(data_of(tmp_path), tmp_path))
    assert found == [
        (
            "raw",
            "its scans are sliced in different planes: 3 axial, 1 sagittal;"
            " give each plane a root of its own",
        )
    ]


def test_many_scans_of_one_subject_are_told(folder):
    one = {"pattern": "(?P<name>s)_"}
    text = "its 6 scans are of one subject; correct its `subject` if they are not"
    assert notes(build(data_of(folder, subject=one), folder)) == [("raw", text)]
    assert notes(build(data_of(folder, subject=None), folder)) == []
