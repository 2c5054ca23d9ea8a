"""File names that are not UTF-8, as of old archives, are names like others in every format."""

import os

import numpy as np
import pytest

from ssl_pipeline.volumes.geometry import to_canonical
from ssl_pipeline.volumes.readers import find_sources, read_grid, read_volume, source_files
from tests.volumes.volume_writers import save_dicom, save_itk, save_nifti

ODD = b"M\xfcller"


def rename_all(folder):
    """`scan` in the name of each file, and the folder's own, becomes a name that is not UTF-8."""
    for name in os.listdir(os.fsencode(folder)):
        path = os.fsencode(folder) + b"/"
        os.rename(path + name, path + name.replace(b"scan", ODD))
    odd = os.fsencode(folder.parent) + b"/" + ODD
    os.rename(folder, odd)
    return odd


def name_voxels(header, old, new):
    header.write_bytes(header.read_bytes().replace(old, new))


WRITERS = {
    "NIfTI": lambda folder, *scan: save_nifti(folder / "scan.nii.gz", *scan),
    "NRRD": lambda folder, *scan: save_itk(folder / "scan.nrrd", *scan),
    "detached NRRD": lambda folder, *scan: name_voxels(
        save_itk(folder / "scan.nhdr", *scan), b"scan.raw", ODD + b".raw"
    ),
    "MetaImage": lambda folder, *scan: save_itk(folder / "scan.mha", *scan),
    "detached MetaImage": lambda folder, *scan: name_voxels(
        save_itk(folder / "scan.mhd", *scan), b"scan.raw", ODD + b".raw"
    ),
    "DICOM": lambda folder, *scan: save_dicom(folder, *scan, suffix="scan"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_name_that_is_not_utf8_is_read(name, brain, tmp_path):
    WRITERS[name](tmp_path / "scans", brain.data, brain.affine)
    folder = rename_all(tmp_path / "scans")
    (source,) = find_sources(tmp_path)
    volume, expected = (to_canonical(each) for each in (read_volume(source), brain))
    assert np.array_equal(volume.data, expected.data)
    assert read_grid(source).shape == brain.data.shape
    assert len(source_files(source)) == len(os.listdir(folder))
