"""The place of a click is found in a folder, with a table, points for 3D Slicer and pictures."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.stored_values import ScanHints
from ssl_pipeline.models import ResEnc
from stages.commands.find import Click, find_in_folder
from tests.conftest import write_scans
from tests.export.conftest import save_random_bundle

MR = ScanHints(modality="MR")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    model = ResEnc(preset="tiny")
    return save_random_bundle(tmp_path_factory.mktemp("encoder") / "encoder", model=model)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two parts of a head, and a file that is no scan."""
    folder = tmp_path_factory.mktemp("scans")
    first, _ = write_scans(folder, count=2)
    (first.parent / "broken.nii.gz").write_bytes(b"no scan")
    return first.parent


def world_of(scan, voxel):
    """The place of a voxel (x, y, z), R, A, S in mm."""
    return nib.affines.apply_affine(nib.load(scan).affine, voxel)


def draw(scans, out, voxel):
    """A label of the box of 5 voxels a side about a voxel of person0."""
    image = nib.load(scans / "person0.nii.gz")
    label = np.zeros(image.shape, np.uint8)
    label[tuple(slice(at - 2, at + 3) for at in voxel)] = 7
    nib.save(nib.Nifti1Image(label, image.affine), out)
    return out


def find(encoder, scans, out, voxel):
    """The place of a voxel (x, y, z) on which a box is drawn, and the rows of the table."""
    place = world_of(scans / "person0.nii.gz", voxel)
    label = draw(scans, out.with_name(f"{out.name}-drawn.nii.gz"), voxel)
    find_in_folder(encoder, Click(scans / "person0.nii.gz", "", label), scans, out, MR)
    with open(out / "places.csv", newline="") as file:
        return place, {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def searched(encoder, scans, tmp_path_factory):
    """The folder of results, the place and the rows of the table by path."""
    out = tmp_path_factory.mktemp("places")
    return out, *find(encoder, scans, out, (14, 20, 12))


def found_in(row):
    """The place of a row of the table, R, A, S in mm."""
    return [float(row[name]) for name in ("right_mm", "front_mm", "top_mm")]


def first_here(rows):
    """The name, without its end, and the row of the first scan that shows the place."""
    path, row = next((path, row) for path, row in rows.items() if row["answer"] == "here")
    return path.removesuffix(".nii.gz"), row


def test_the_clicked_scan_itself_shows_the_place_where_it_was_clicked(searched):
    """As far as random weights know it: they see a place and its surroundings."""
    _, place, rows = searched
    own = rows["person0.nii.gz"]
    assert float(own["confidence"]) > 0.9
    np.testing.assert_allclose(found_in(own), place, atol=2.5)  # a voxel


def test_a_scan_that_shows_the_place_gets_a_point_and_a_picture(searched):
    out, _, rows = searched
    name, own = first_here(rows)
    found = found_in(own)
    (markup,) = json.loads((out / f"{name}.mrk.json").read_text())["markups"]
    (point,) = markup["controlPoints"]
    assert markup["coordinateSystem"] == "LPS"
    np.testing.assert_allclose(point["position"], np.array([-1, -1, 1]) * found, atol=0.01)
    assert rows["broken.nii.gz"]["error"].startswith("broken.nii.gz")
    assert rows["person0.nii.gz"]["error"] == rows["person1.nii.gz"]["error"] == ""
    with Image.open(out / f"{name}.png") as picture:
        assert (np.array(picture) == (230, 159, 0)).all(axis=2).any(), "a ring about the place"
    with Image.open(out / "click.png") as picture, Image.open(out / "person0.png") as own:
        assert picture.size == own.size


def test_a_drawn_label_is_carried_to_the_place_in_the_grid_of_the_scan(scans, searched):
    out, _, rows = searched
    name, row = first_here(rows)
    proposal, scan = nib.load(out / f"{name}.nii.gz"), nib.load(scans / f"{name}.nii.gz")
    np.testing.assert_allclose(proposal.affine, scan.affine)
    label = np.asarray(proposal.dataobj)
    assert label.shape == scan.shape and set(np.unique(label)) == {0, 7}
    assert (label == 7).sum() == 125
    middle = world_of(scans / f"{name}.nii.gz", np.argwhere(label == 7).mean(axis=0))
    assert np.abs(middle - found_in(row)).max() <= 1.2  # half a voxel
    others = {row["path"] for row in rows.values() if row["answer"] != "here"}
    assert not any((out / path).exists() for path in others)


def test_an_empty_label_is_one_sentence(encoder, scans, tmp_path):
    image = nib.load(scans / "person0.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), tmp_path / "no.nii.gz")
    click = Click(scans / "person0.nii.gz", "", tmp_path / "no.nii.gz")
    with pytest.raises(UserError, match="is empty: draw the structure, or give --at alone"):
        find_in_folder(encoder, click, scans, tmp_path / "out", MR)


def test_a_second_click_describes_no_scan_again(encoder, scans, searched, tmp_path):
    before, kept = searched[0] / "descriptors", tmp_path / "descriptors"
    assert len(list(before.iterdir())) == 2
    shutil.copytree(before, kept)
    times = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    _, rows = find(encoder, scans, tmp_path, (14, 20, 12))
    assert rows == searched[2]
    assert times == {path: path.stat().st_mtime_ns for path in kept.iterdir()}


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("", "give three numbers in mm"),
        ("1,2", "give three numbers in mm"),
        ("1,2,nan", "give three numbers in mm"),
        ("900,0,0", "--at lies outside of the body in person0.nii.gz, which spans R"),
    ],
)
def test_a_place_that_cannot_be_clicked_is_one_sentence(encoder, scans, tmp_path, at, message):
    with pytest.raises(UserError, match=message):
        find_in_folder(encoder, Click(scans / "person0.nii.gz", at), scans, tmp_path, MR)


def test_results_do_not_go_among_the_scans(encoder, scans):
    with pytest.raises(UserError, match="pictures would lie among the scans"):
        find_in_folder(encoder, Click(scans / "person0.nii.gz", "0,0,0"), scans, scans / "out", MR)
