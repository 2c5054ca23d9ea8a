"""`predict` as it is run: a DICOM series beside a NIfTI, overlays, and tables of every kind."""

import shutil

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.processing import resample_from_to
from PIL import Image

from ssl_pipeline import load_model
from ssl_pipeline.evaluation.tasks import Regression
from stages.cli import main
from tests.stages.commands.conftest import predict, read_rows, save_constant
from tests.volumes.volume_writers import save_dicom


@pytest.fixture(scope="module")
def predicted(whole, tissue, tmp_path_factory):
    """A scan as NIfTI and as a DICOM series, their predictions, and the files of the slices."""
    folder = tmp_path_factory.mktemp("predicted")
    scan = whole.parent / "raw/images/person0.nii.gz"
    image = nib.load(scan)
    slices = save_dicom(folder / "in/series", np.asarray(image.dataobj), image.affine)
    shutil.copy(scan, folder / "in")
    return folder, predict(folder / "in", folder / "out", tissue), slices


def test_a_series_is_predicted_as_the_same_scan_in_another_format(predicted):
    folder, (nifti, series), slices = predicted
    assert (nifti["path"], series["path"]) == ("person0.nii.gz", "series")
    assert not (series["error"] or series["note"])
    assert float(series["dark (ml)"]) == pytest.approx(float(nifti["dark (ml)"]), rel=0.01)
    scan = nib.load(folder / "in/person0.nii.gz")
    expected = np.asarray(nib.load(folder / "out/person0.nii.gz").dataobj)
    of_series = resample_from_to(
        nib.load(folder / "out/series.nii.gz"), scan, order=0, mode="nearest"
    )
    labels = np.asarray(of_series.dataobj).astype(int)
    assert {1, 2} <= set(np.unique(labels)) and (labels == expected).mean() > 0.99
    seg = highdicom.seg.segread(folder / "out/series.dcm")
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in slices]
    referenced = {
        item.ReferencedSOPInstanceUID
        for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {header.SOPInstanceUID for header in headers}
    frames = seg.get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in headers],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(frames.transpose(2, 1, 0), labels), "classes are 1 and 2"


def test_a_series_is_predicted_twice_to_the_same_bytes(predicted, tissue):
    folder, _, _ = predicted
    predict(folder / "in", folder / "again", tissue)
    files = [
        {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        for name in ("out", "again")
    ]
    assert files[0] == files[1] and {"series.dcm", "series.nii.gz", "series.png"} <= set(files[0])


@pytest.mark.parametrize("name", ["person0", "series"])
def test_the_overlay_shows_each_class_where_it_is(predicted, name):
    folder, _, _ = predicted
    label = nib.as_closest_canonical(nib.load(folder / f"out/{name}.nii.gz"))
    labels = np.asarray(label.dataobj).transpose(2, 1, 0)  # towards superior, anterior, right
    plane = labels[(labels > 0).sum(axis=(1, 2)).argmax()][::-1, ::-1]
    assert set(np.unique(plane)) >= {1, 2}
    picture = np.asarray(Image.open(folder / f"out/{name}.png").convert("RGB")).astype(int)
    rows, columns = (
        ((np.arange(n) + 0.5) * side / n).astype(int)
        for n, side in zip(plane.shape, picture.shape, strict=False)
    )
    red, _, blue = np.moveaxis(picture[rows][:, columns], -1, 0)
    painted = np.select([red - blue > 40, blue - red > 40], [1, 2], 0)  # orange, blue, grey
    assert (painted == plane).mean() > 0.99


def test_two_models_are_averaged_by_the_command(whole, finetuned, tissue, tmp_path):
    """Each gives one constant; of the voxels the mean chooses a class that neither model does."""
    side, number = load_model(finetuned / "side/model"), Regression(title="Age", target="age")
    voxels, scans = load_model(tissue), tmp_path / "scans"
    scans.mkdir()
    shutil.copy(whole.parent / "raw/images/person0.nii.gz", scans)
    shares = {
        "classes": (side, None, np.log([0.8, 0.2]), np.log([0.4, 0.6])),
        "number": (side, number, [63.0], [52.0]),
        "voxels": (voxels, None, np.log([0.1, 0.5, 0.4]), np.log([0.5, 0.05, 0.45])),
    }
    found = {}
    for name, (model, task, *outputs) in shares.items():
        first, second = (
            save_constant(tmp_path / f"{name}-{at}", model, each, task)
            for at, each in enumerate(outputs)
        )
        words = ("predict", first, scans, "--with", second, "--modality", "MR")
        assert main([*map(str, words), "--out", str(tmp_path / name)]) == 0
        (found[name],) = read_rows(tmp_path / name)
    assert float(found["classes"]["left (probability)"]) == pytest.approx(0.6)
    assert float(found["classes"]["right (probability)"]) == pytest.approx(0.4)
    assert float(found["number"]["predicted"]) == pytest.approx(57.5)
    assert {path.name for path in (tmp_path / "number").iterdir()} == {"predictions.csv"}
    assert float(found["voxels"]["bright (mean probability)"]) == pytest.approx(0.425, abs=1e-4)
    assert float(found["voxels"]["dark (ml)"]) == 0
    assert (np.asarray(nib.load(tmp_path / "voxels/person0.nii.gz").dataobj) == 2).all()


def test_classes_of_every_scan_are_a_table_alone(whole, finetuned, tmp_path):
    raw, model = whole.parent / "raw/images", finetuned / "side/model"
    rows = predict(raw, tmp_path / "out", model)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.csv"}
    expected = load_model(model).predict(raw / "person3.nii.gz", "MR").prediction.values
    for name in ("left (probability)", "right (probability)"):
        assert float(rows[3][name]) == pytest.approx(expected[name], rel=1e-5)
