"""The inventory of small real folders: subjects, and rejections with reasons."""

import io
import os
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes import thumbnails
from ssl_pipeline.volumes.config import Data
from ssl_pipeline.volumes.fingerprint import ABSENT, data_fingerprint, record_file_hashes
from ssl_pipeline.volumes.inventory import Inventory
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.readers.reader import ORIENTATION_NOTE
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.inventory_helpers import (
    RULE,
    as_hounsfield,
    build,
    by_name,
    data_of,
    pseudonyms_of,
    subject_name,
    with_noise,
)
from tests.volumes.volume_writers import save_dicom, save_itk, save_nifti


def test_who_and_what(folder):
    data = data_of(folder, name="mr", weight=2, targets={"odd": RULE | {"expression": "id % 2"}})
    inventory = build(data, folder)
    assert len(inventory.accepted_scans) == 6
    scan = inventory.scans[2]
    assert (scan.targets, scan.root, scan.weight) == ({"odd": "1"}, "mr", 2)
    assert subject_name(folder, scan) == "2" and re.fullmatch("[0-9a-f]{12}", scan.subject)
    assert (scan.format, scan.shape, scan.orientation) == ("NIfTI", (33, 41, 25), "LAS")
    assert scan.spacing_mm == pytest.approx((2, 2, 2))
    assert len({scan.id for scan in inventory.scans}) == 6
    assert inventory.scans[2].split == inventory.scans[3].split != ""


def test_the_table_comes_back_and_is_equal_when_made_again(folder):
    inventory = build(data_of(folder), folder)
    inventory.write(folder / "a.parquet")
    build(data_of(folder), folder).write(folder / "b.parquet")
    assert Inventory.read(folder / "a.parquet") == inventory
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()


def test_a_table_of_another_version_is_refused(folder):
    columns = {"id": ["a"], "subject": ["b"], "quality": ["accepted"]}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    with pytest.raises(UserError, match="is an inventory of format None"):
        Inventory.read(folder / "a.parquet")


def test_unchanged_files_are_not_read_again(folder):
    """What an earlier inventory said of a file, whatever it is, is said again."""
    found = build(data_of(folder), folder)
    marked = replace(found.scans[0], repair="as it was said before", quality="repaired")
    before = replace(found, scans=(marked, *found.scans[1:]))
    again = build(data_of(folder), folder, before)
    assert again.scans[0].repair == "as it was said before"
    (folder / "raw" / "s_01.nii.gz").write_bytes(b"no image")
    assert build(data_of(folder), folder, before).scans[0].quality == "rejected"


def as_mhd_of_slices(folder, voxels, affine):
    """A MetaImage header whose voxels lie in numbered files."""
    header = save_itk(folder / "a_1.mhd", voxels, affine)
    lines = header.read_text().splitlines()
    last = voxels.shape[2] - 1
    header.write_text("\n".join([*lines[:-1], f"ElementDataFile = s%03d.raw 0 {last} 1", ""]))
    (folder / "a_1.raw").unlink()
    for number in range(last + 1):
        (folder / f"s{number:03}.raw").write_bytes(voxels[:, :, number].tobytes(order="F"))


@pytest.mark.parametrize("date", ["older", "the same"])
@pytest.mark.parametrize("write", [save_dicom, as_mhd_of_slices])
def test_a_slice_that_is_replaced_under_an_old_date_is_read_again(write, date, brain, tmp_path):
    raw, voxels = tmp_path / "raw", with_noise(brain, 1)
    write(raw, voxels, brain.affine)
    paths = sorted(path for path in raw.iterdir() if path.suffix != ".mhd")
    for number, path in enumerate(paths):
        os.utime(path, (1000 + number, 1000 + number))
    before = build(data_of(tmp_path, subject=None), tmp_path)
    record_file_hashes(before, pseudonyms_of(tmp_path))
    listing = fingerprint_of(tmp_path)
    content = paths[10].read_bytes()
    paths[10].write_bytes(content[:-2] + bytes([content[-2] ^ 255, 3]))
    seconds = 1010 if date == "the same" else 1005
    os.utime(paths[10], (seconds, seconds))
    assert fingerprint_of(tmp_path) != listing
    after = build(data_of(tmp_path, subject=None), tmp_path, before)
    assert before.scans[0].sha256 != after.scans[0].sha256
    assert after.scans[0].quality == "accepted"


def fingerprint_of(folder):
    hashes = pseudonyms_of(folder).file_hashes
    return data_fingerprint(data_of(folder, subject=None), folder, hashes)


def test_a_touched_file_leaves_the_table_equal(folder):
    before = build(data_of(folder), folder)
    os.utime(folder / "raw" / "s_01.nii.gz", (1, 1))
    assert build(data_of(folder), folder, before) == before


def test_other_thresholds_check_again(folder):
    before = build(data_of(folder), folder)
    after = build(data_of(folder), folder, before, QualityThresholds(min_axis_voxels=30))
    assert not after.accepted_scans
    assert build(data_of(folder), folder, after) == before


def test_scans_that_are_added_move_nobody(folder, brain):
    before = build(data_of(folder), folder)
    save_nifti(folder / "raw" / "s_00.nii.gz", with_noise(brain, 99), brain.affine)
    after = build(data_of(folder), folder, before)
    assert len(after.scans) == 7
    assert all(scan in after.scans for scan in before.scans)


# refused


def test_an_empty_folder(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"no image was found in .*raw; known formats are NIfTI"):
        build(data_of(tmp_path), tmp_path)


def test_an_absent_folder(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        build(data_of(tmp_path), tmp_path)


def test_no_data_at_all(tmp_path):
    with pytest.raises(UserError, match="neither `roots` nor a `table`"):
        build(Data(), tmp_path)


def test_each_bad_file_has_its_reason(folder, brain):
    raw = folder / "raw"
    nothing = np.full(brain.data.shape, np.nan, np.float32)
    save_nifti(raw / "s_11.nii", nothing, brain.affine)
    save_nifti(raw / "s_12.nii", np.zeros_like(brain.data), brain.affine)
    save_nifti(raw / "s_13.nii", brain.data[:, :, 9], brain.affine)
    save_nifti(raw / "s_14.nii", np.stack([brain.data] * 2, -1), brain.affine)
    os.truncate(raw / "s_01.nii.gz", 9000)
    scans = by_name(folder, build(data_of(folder), folder))
    reasons = {
        "s_01.nii.gz": "is the file complete?",
        "s_11.nii": "every voxel is NaN or infinite",
        "s_12.nii": "every voxel has the same value",
        "s_13.nii": "is a 2D image",
        "s_14.nii": "has 4 axes",
    }
    for name, reason in reasons.items():
        assert scans[name].quality == "rejected"
        assert reason in scans[name].reason
    assert sum(scan.quality == "accepted" for scan in scans.values()) == 5


def test_an_unknown_modality(folder):
    inventory = build(data_of(folder, modality=None), folder)
    assert {scan.reason for scan in inventory.scans} == {
        "modality is unknown: set `modality` for this root"
    }


def test_dicom_says_its_own_modality(folder, brain):
    save_dicom(
        folder / "raw" / "series_09", as_hounsfield(brain, 9), brain.affine, "CT", uid="1.2.3"
    )
    inventory = build(data_of(folder, modality=None), folder)
    assert [scan.modality for scan in inventory.accepted_scans] == ["CT"]
    assert pseudonyms_of(folder).origins[inventory.accepted_scans[0].id].series == "1.2.3"
    touched = sorted((folder / "raw" / "series_09").iterdir())[3]
    os.utime(touched, (1, 1))
    assert build(data_of(folder, modality=None), folder, inventory) == inventory


@pytest.mark.parametrize(("declared", "own"), [("MR", "CT"), ("CT", "MR")])
def test_the_header_counts_against_the_modality_of_the_root(declared, own, brain, tmp_path):
    voxels = as_hounsfield(brain, 1) if own == "CT" else with_noise(brain, 1)
    save_dicom(tmp_path / "raw/a_1", voxels, brain.affine, own)
    file = save_itk(tmp_path / "raw/b_2.mha", voxels + np.int16(1), brain.affine)
    words = f"Modality = MET_MOD_{own}\nNDims".encode()
    file.write_bytes(file.read_bytes().replace(b"NDims", words, 1))
    scans = build(data_of(tmp_path, modality=declared), tmp_path).scans
    note = f"its header says {own} and the study {declared}: the header counts"
    assert [(scan.modality, scan.quality, scan.reason) for scan in scans] == [
        (own, "accepted", note)
    ] * 2


def test_two_files_of_one_scan(folder, brain):
    save_nifti(folder / "raw" / "s_01.nii", with_noise(brain, 50), brain.affine)
    scans = by_name(folder, build(data_of(folder), folder))
    assert scans["s_01.nii"].quality == "accepted"
    assert scans["s_01.nii.gz"].reason == (f"two files of one scan: {scans['s_01.nii'].id} is used")


def test_equal_voxels_are_found_in_any_format_and_orientation(folder, brain):
    flipped = with_noise(brain, 3)[:, ::-1].astype(np.int32)
    affine = brain.affine @ np.diag([1, -1, 1, 1])
    affine[1, 3] = brain.affine[1, 3] + 40 * brain.affine[1, 1]
    save_itk(folder / "raw" / "t_20.mha", flipped, affine)
    scans = by_name(folder, build(data_of(folder), folder))
    assert scans["t_20.mha"].reason.startswith(f"duplicate of {scans['s_03.nii.gz'].id}")


def test_a_stray_file_whose_subject_is_unknown_is_rejected_alone(folder, brain):
    save_nifti(folder / "raw" / "stray.nii", with_noise(brain, 8), brain.affine)
    inventory = build(data_of(folder), folder)
    assert len(inventory.accepted_scans) == 6
    stray = by_name(folder, inventory)["stray.nii"]
    assert stray.quality == "rejected" and stray.subject == "" and stray.split == ""
    assert "`_(?P<id>\\d+)` does not match its path; change the pattern" in stray.reason
    assert len(build(data_of(folder, exclude=["stray*"]), folder).scans) == 6


def test_a_link_to_nothing_is_rejected_alone(folder):
    (folder / "raw" / "s_07.nii.gz").symlink_to(folder / "moved" / "s_07.nii.gz")
    link = by_name(folder, build(data_of(folder), folder))["s_07.nii.gz"]
    assert link.quality == "rejected" and link.reason == "is a link to nothing."
    (folder / "raw" / "s_08").symlink_to(folder / "moved")
    assert len(build(data_of(folder), folder).accepted_scans) == 6


def test_a_scan_without_orientation_is_accepted_with_a_note(folder, brain):
    path = save_nifti(folder / "raw" / "s_07.nii", with_noise(brain, 7), brain.affine)
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # qform and sform codes
    path.write_bytes(content)
    inventory = build(data_of(folder), folder)
    scan = by_name(folder, inventory)["s_07.nii"]
    assert (scan.quality, scan.reason, scan.orientation) == ("accepted", ORIENTATION_NOTE, "RAS")
    assert build(data_of(folder), folder, inventory) == inventory


def test_a_name_that_is_not_utf8_is_a_name_like_others(folder, brain):
    path = save_nifti(folder / "raw" / "s_07.nii", with_noise(brain, 7), brain.affine)
    odd = os.fsencode(path.parent) + b"/M\xfcller_07.nii"
    os.rename(path, odd)
    data = data_of(folder, subject={"pattern": r"(?P<name>.+)_\d"})
    inventory = build(data, folder)
    scan = by_name(folder, inventory)[os.fsdecode(b"M\xfcller_07.nii")]
    assert scan.quality == "accepted"
    assert os.fsencode(pseudonyms_of(folder).origins[scan.id].path) == odd
    assert subject_name(folder, scan) == os.fsdecode(b"M\xfcller")
    inventory.write(folder / "a.parquet")
    assert Inventory.read(folder / "a.parquet") == inventory
    record_file_hashes(inventory, pseudonyms_of(folder))
    assert data_fingerprint(data, folder, pseudonyms_of(folder).file_hashes) != ABSENT


# repaired


def test_a_tilted_scan_counts_as_usable_and_is_reported(folder, brain):
    tilted = brain.affine.copy()
    tilted[1, 2] += 0.4
    save_dicom(folder / "raw" / "t_09", with_noise(brain, 9), tilted)
    inventory = build(data_of(folder), folder)
    (repaired,) = [scan for scan in inventory.scans if scan.quality == "repaired"]
    assert repaired in inventory.accepted_scans and len(inventory.accepted_scans) == 7
    assert repaired.reason == repaired.repair
    assert repaired.reason.startswith("its axes, 11.3 degrees off a right angle")
    inventory.write(folder / "a.parquet")
    assert Inventory.read(folder / "a.parquet") == inventory
    strict = build(data_of(folder), folder, inventory, QualityThresholds(max_shear_deg=0))
    assert "as by a tilted gantry" in by_name(folder, strict)["t_09"].reason
    assert by_name(folder, strict)["t_09"].quality == "rejected"


# thumbnails


def test_every_scan_that_opens_has_a_thumbnail_also_when_it_is_not_read_again(folder, brain):
    (folder / "raw" / "bad_07.nii").write_bytes(b"nothing")
    save_nifti(folder / "raw" / "flat_08.nii", np.full_like(brain.data, 7), brain.affine)
    before = build(data_of(folder), folder)
    opened = {scan.id for scan in before.scans if scan.orientation}
    assert set(before.thumbnails) == opened and len(opened) == 7
    thumbnails.write(folder / "t.parquet", before.thumbnails)
    kept = replace(before, thumbnails=thumbnails.read(folder / "t.parquet"))
    assert build(data_of(folder), folder, kept).thumbnails == before.thumbnails
    lost = replace(before, thumbnails={})
    assert build(data_of(folder), folder, lost).thumbnails == before.thumbnails


def test_a_thumbnail_shows_three_planes_the_right_way_up():
    x, y, z = np.indices((40, 30, 20))
    data = ((x >= 20) * 1 + (y >= 15) * 2 + (z >= 10) * 4).astype(np.int16)
    jpeg = thumbnails.thumbnail(Volume(data, np.diag([1.0, 1, 2, 1])), None)
    assert len(jpeg) < 4000
    image = np.asarray(Image.open(io.BytesIO(jpeg)), int)
    assert image.shape == (64, 192)
    axial, coronal, sagittal = (image[:, start : start + 64] for start in (0, 64, 128))
    tone = 255 / 6  # the planes hold values from 1 to 7
    for plane, across, up in ((axial, 1, 2), (coronal, 1, 4), (sagittal, 2, 4)):
        below, above = plane[44, [20, 44]], plane[20, [20, 44]]
        assert below[0] - below[1] == pytest.approx(across * tone, abs=25)  # higher on the left
        assert above[0] - below[0] == pytest.approx(up * tone, abs=25)
