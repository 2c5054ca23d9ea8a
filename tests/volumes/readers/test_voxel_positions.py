"""Voxel positions are right to 0.01 mm in every format, against another reader."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from ssl_pipeline.volumes import geometry
from ssl_pipeline.volumes.readers import Source, find_sources, read_volume
from tests.volumes.volume_writers import (
    LPS,
    rotated_affine,
    save_dicom,
    save_enhanced,
    save_itk,
    save_nifti,
)

DATA = np.arange(7 * 6 * 5, dtype=np.int16).reshape(7, 6, 5)  # each value once
INDEX = np.stack(np.meshgrid(*map(np.arange, DATA.shape), indexing="ij"), -1).reshape(-1, 3)
TOLERANCE_MM = 0.01
AXES = [
    np.eye(3)[:, list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def by_value(data, affine):
    """Where each value lies, RAS mm, sorted by value."""
    index = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1).reshape(-1, 3)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    return places[np.argsort(data[tuple(index.T)], kind="stable")]


def by_simpleitk(image):
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return by_value(SimpleITK.GetArrayFromImage(image).T, LPS @ affine)


def write_nifti(folder, affine):
    path = save_nifti(folder / "a.nii.gz", DATA, affine)
    return Source(path), by_simpleitk(SimpleITK.ReadImage(str(path)))


def write_sheared_nifti(folder, affine):
    """For sheared axes, which SimpleITK does not read from NIfTI."""
    path = save_nifti(folder / "a.nii.gz", DATA, affine)
    image = nibabel.load(path)
    return Source(path), by_value(np.asarray(image.dataobj), image.affine)


def write_nrrd(folder, affine):
    """Told by the header's own words; the voxels lie raw behind an empty line."""
    path = save_itk(folder / "a.nrrd", DATA, affine)
    head, _, raw = path.read_bytes().partition(b"\n\n")
    said = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    columns = [eval(vector) for vector in said["space directions"].split()]
    lps = np.eye(4)
    lps[:3, :3] = np.transpose(columns)
    lps[:3, 3] = eval(said["space origin"])
    return Source(path), by_value(
        np.frombuffer(raw, "<i2").reshape(DATA.shape, order="F"), LPS @ lps
    )


def write_metaimage(folder, affine):
    path = save_itk(folder / "a.mhd", DATA, affine)
    said = dict(line.split(" = ", 1) for line in path.read_text().splitlines())
    numbers = {name: np.array(said[name].split(), float) for name in said if name in NUMBERS}
    lps = np.eye(4)
    lps[:3, :3] = (numbers["TransformMatrix"].reshape(3, 3).T) * numbers["ElementSpacing"]
    lps[:3, 3] = numbers["Offset"]
    raw = np.frombuffer((folder / "a.raw").read_bytes(), "<i2").reshape(DATA.shape, order="F")
    return Source(path), by_value(raw, LPS @ lps)


NUMBERS = ("TransformMatrix", "ElementSpacing", "Offset")


def write_dicom(folder, affine):
    """Told slice by slice, with the equation of PS3.3 C.7.6.2.1.1."""
    paths = save_dicom(folder / "a", DATA, affine)
    found = {}
    for path in paths:
        file = dcmread(path)
        row, column = np.reshape(file.ImageOrientationPatient, (2, 3)).astype(float)
        for (j, i), value in np.ndenumerate(file.pixel_array):
            place = np.array(file.ImagePositionPatient, float)
            place += row * file.PixelSpacing[1] * i + column * file.PixelSpacing[0] * j
            found[int(value)] = place * (-1, -1, 1)
    return find_sources(folder)[0], np.array([found[value] for value in sorted(found)])


def write_enhanced(folder, affine):
    save_enhanced(folder / "a.dcm", DATA, affine)
    file = dcmread(folder / "a.dcm")
    shared = file.SharedFunctionalGroupsSequence[0]
    directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    row, column = np.reshape(directions, (2, 3)).astype(float)
    sides = shared.PixelMeasuresSequence[0].PixelSpacing
    found = {}
    for group, pixels in zip(file.PerFrameFunctionalGroupsSequence, file.pixel_array, strict=True):
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for (j, i), value in np.ndenumerate(pixels):
            place = corner + row * sides[1] * i + column * sides[0] * j
            found[int(value)] = place * (-1, -1, 1)
    return find_sources(folder)[0], np.array([found[value] for value in sorted(found)])


FORMATS = (write_nifti, write_nrrd, write_metaimage, write_dicom, write_enhanced)


def check(source, positions, affine):
    volume = read_volume(source)
    expected = INDEX @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_array_equal(np.sort(volume.data, axis=None), DATA.ravel())
    np.testing.assert_allclose(positions, expected, atol=TOLERANCE_MM)
    np.testing.assert_allclose(by_value(volume.data, volume.affine), positions, atol=TOLERANCE_MM)


@pytest.mark.parametrize("write", FORMATS)
def test_all_48_orientations(write, tmp_path):
    for number, axes in enumerate(AXES):
        affine = np.eye(4)
        affine[:3, :3] = axes * (0.7, 1.3, 2.9)
        affine[:3, 3] = 71.3, -103.7, 411.9
        check(*write(tmp_path / str(number), affine), affine)


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("degrees", [(4, -7, 11), (40, 25, -60), (-91, 3, 179)])
def test_oblique(write, degrees, tmp_path):
    affine = rotated_affine(degrees, (0.7, 1.3, 2.9), (71.3, -103.7, 411.9))
    check(*write(tmp_path, affine), affine)


@pytest.mark.parametrize("write", [write_sheared_nifti, *FORMATS[1:]])
@pytest.mark.parametrize("axis", [0, 1])
def test_sheared(write, axis, tmp_path):
    affine = rotated_affine((4, -7, 11), (0.7, 1.3, 2.9), (71.3, -103.7, 411.9))
    affine[:3, 2] += affine[:3, axis] / np.linalg.norm(affine[:3, axis]) * 0.8
    check(*write(tmp_path, affine), affine)
    assert geometry.shear_deg(affine) == pytest.approx(np.degrees(np.arctan(0.8 / 2.9)))
