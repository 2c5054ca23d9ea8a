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
from stages.commands.find import find_in_folder
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


def find(encoder, scans, out, voxel):
    place = world_of(scans / "person0.nii.gz", voxel)
    text = ",".join(map(str, place))
    find_in_folder(encoder, scans / "person0.nii.gz", text, scans, out, MR)
    with open(out / "places.csv", newline="") as file:
        return place, {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def searched(encoder, scans, tmp_path_factory):
    """The folder of results, the place and the rows of the table by path."""
    out = tmp_path_factory.mktemp("places")
    return out, *find(encoder, scans, out, (14, 20, 12))


def test_the_clicked_scan_itself_shows_the_place_where_it_was_clicked(searched):
    out, place, rows = searched
    own = rows["person0.nii.gz"]
    assert own["answer"] == "here" and float(own["confidence"]) >= 0.97
    found = [float(own[name]) for name in ("right_mm", "front_mm", "top_mm")]
    np.testing.assert_allclose(found, place, atol=2.5)  # a voxel
    (markup,) = json.loads((out / "person0.mrk.json").read_text())["markups"]
    (point,) = markup["controlPoints"]
    assert markup["coordinateSystem"] == "LPS"
    np.testing.assert_allclose(point["position"], np.array([-1, -1, 1]) * found, atol=0.01)
    assert rows["broken.nii.gz"]["error"].startswith("broken.nii.gz")
    assert rows["person1.nii.gz"]["error"] == ""
    with Image.open(out / "person0.png") as picture, Image.open(out / "click.png") as own:
        assert picture.size == own.size
        ring = (np.array(picture) == (230, 159, 0)).all(axis=2)
        assert ring.any()


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
        ("1,2", "give three numbers in mm"),
        ("1,2,nan", "give three numbers in mm"),
        ("900,0,0", "--at lies outside of the body in person0.nii.gz, which spans R"),
    ],
)
def test_a_place_that_cannot_be_clicked_is_one_sentence(encoder, scans, tmp_path, at, message):
    with pytest.raises(UserError, match=message):
        find_in_folder(encoder, scans / "person0.nii.gz", at, scans, tmp_path, MR)


def test_results_do_not_go_among_the_scans(encoder, scans):
    with pytest.raises(UserError, match="pictures would lie among the scans"):
        find_in_folder(encoder, scans / "person0.nii.gz", "0,0,0", scans, scans / "out", MR)
