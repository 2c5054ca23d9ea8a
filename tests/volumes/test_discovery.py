"""Which files belong to a study, and whom they are of: patterns see files, and nothing is lost."""

import unicodedata

import pytest

from ssl_pipeline.volumes.readers import read_volume
from tests.volumes.inventory_helpers import (
    build,
    by_name,
    data_of,
    pseudonyms_of,
    subject_name,
    with_noise,
)
from tests.volumes.volume_writers import save_dicom, save_nifti


@pytest.fixture
def raw(brain, tmp_path):
    """DICOM of two people, one with a scout, and a NIfTI file that lies as they do."""
    save_dicom(tmp_path / "raw/anna", with_noise(brain, 1), brain.affine, suffix=".dcm", uid="1.2")
    save_dicom(tmp_path / "raw/ben/scan", with_noise(brain, 2), brain.affine, suffix=".dcm")
    save_dicom(tmp_path / "raw/ben/scout", with_noise(brain, 3), brain.affine, suffix=".dcm")
    save_nifti(tmp_path / "raw/cy/scan.nii", with_noise(brain, 4), brain.affine)
    return tmp_path / "raw"


FOLDER_RULE = {"pattern": "(?P<patient>[^/]+)/"}


def subjects_by_name(folder, **root):
    inventory = build(data_of(folder, **{"subject": FOLDER_RULE, **root}), folder)
    scans = by_name(folder, inventory).items()
    return {name: subject_name(folder, scan) for name, scan in scans if scan.quality == "accepted"}


def test_a_pattern_sees_the_files_of_a_series(raw):
    found = subjects_by_name(raw.parent)
    assert found == {"anna": "anna", "scan": "ben", "scout": "ben", "scan.nii": "cy"}


@pytest.mark.parametrize(
    ("root", "names"),
    [
        ({"exclude": ["*/scout/*"]}, {"anna", "scan", "scan.nii"}),
        ({"exclude": ["*/scout"]}, {"anna", "scan", "scan.nii"}),
        ({"exclude": ["cy", "anna"]}, {"scan", "scout"}),
        ({"exclude": ["./cy/", "anna/"]}, {"scan", "scout"}),
        ({"include": "*.dcm"}, {"anna", "scan", "scout"}),
        ({"include": "*/scan*"}, {"scan", "scan.nii"}),
    ],
)
def test_include_and_exclude_see_files_and_folders_of_every_format(root, names, raw):
    assert set(subjects_by_name(raw.parent, **root)) == names


def test_an_exclude_that_leaves_nothing_out_is_named(raw):
    left_out = ["*/scout", "ann", "*/Scout"]
    found = build(data_of(raw.parent, subject=FOLDER_RULE, exclude=left_out), raw.parent)
    assert found.idle_excludes == (("raw", "ann"), ("raw", "*/Scout"))


def test_a_name_in_decomposed_characters_is_the_same_name(brain, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "ré_1") for form in ("NFC", "NFD"))
    save_nifti(tmp_path / f"raw/{decomposed}.nii", brain.data, brain.affine)
    save_nifti(tmp_path / f"raw/{decomposed}x.nii", brain.data + 1, brain.affine)
    save_nifti(tmp_path / f"labels/{composed}.nii", (brain.data > 900).astype("u1"), brain.affine)
    (tmp_path / "t.csv").write_text(f"path,site\nraw/{composed}.nii,north\n")
    rule, labels = {"pattern": "(?P<name>ré_[0-9])"}, {"bright": {"path": f"{tmp_path}/labels"}}
    data = data_of(tmp_path, subject=rule, labels=labels, exclude=[f"{composed}x*"])
    (scan,) = build(data.model_copy(update={"table": "t.csv"}), tmp_path).scans
    assert subject_name(tmp_path, scan) == composed
    assert (scan.site, scan.labels) == ("north", {"bright": True})


def test_a_slice_that_is_left_out_is_no_part_of_its_series_later_on(brain, raw):
    extra = save_dicom(raw / "anna", brain.data, brain.affine, suffix="-again", uid="1.2")
    folder = raw.parent
    inventory = build(data_of(folder, subject=FOLDER_RULE, exclude=["*-again"]), folder)
    scan = by_name(folder, inventory)["anna"]
    source = pseudonyms_of(folder).origins[scan.id].source
    assert (scan.quality, scan.part) == ("accepted", "")
    assert set(source.left_out) == {path.name for path in extra}
    assert read_volume(source).data.shape == scan.shape == brain.data.shape


def test_a_series_whose_files_are_of_several_subjects_by_the_rule_is_refused(brain, tmp_path):
    above = brain.affine.copy()
    above[:3, 3] += above[:3, 2] * brain.data.shape[2]
    for suffix, affine in (("_ann", brain.affine), ("_ben", above)):
        save_dicom(tmp_path / "raw", brain.data, affine, suffix=suffix, uid="1.2")
    rule = {"pattern": "_(?P<patient>[a-z]+)"}
    (scan,) = build(data_of(tmp_path, subject=rule), tmp_path).scans
    assert (scan.quality, scan.subject) == ("rejected", "")
    assert "gives 2 subjects for the files of one series; change the pattern" in scan.reason


def test_files_that_are_part_of_no_image_are_listed(raw):
    for name in ("notes.txt", "anna/IM.zip", "left/out.txt"):
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_text("no image")
    inventory = build(data_of(raw.parent, subject=FOLDER_RULE, exclude=["left/*"]), raw.parent)
    assert list(inventory.unused_files) == [raw / "notes.txt", raw / "anna/IM.zip"]
    store = pseudonyms_of(raw.parent)
    store.write_unused_files(inventory.unused_files)
    assert store.unused_files.read_text().splitlines() == list(map(str, inventory.unused_files))
