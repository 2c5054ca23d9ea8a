"""Every format gives the same volume; every bad file gives one sentence."""

import gzip
import os

import nibabel
import numpy as np
import pytest
import SimpleITK

from ssl_pipeline.volumes import readers
from ssl_pipeline.volumes.readers import (
    READERS,
    ReadError,
    Source,
    find_sources,
    read_grid,
    read_volume,
    source_files,
    strip_suffix,
)
from ssl_pipeline.volumes.readers.reader import ORIENTATION_NOTE
from tests.volumes.volume_writers import (
    ANATOMICAL,
    FOUR_AXES,
    rotated_affine,
    save_dicom,
    save_itk,
    save_nifti,
)


def _dicom_source(path, data, affine):
    save_dicom(path, data, affine)
    (source,) = find_sources(path)
    return source


def _file(writer):
    return lambda path, data, affine: Source(writer(path, data, affine))


WRITERS = {
    "NIfTI": [("a.nii", _file(save_nifti)), ("a.nii.gz", _file(save_nifti))],
    "NRRD": [("a.nrrd", _file(save_itk)), ("a.nhdr", _file(save_itk))],
    "MetaImage": [("a.mha", _file(save_itk)), ("a.mhd", _file(save_itk))],
    "DICOM": [("a", _dicom_source)],
}
CASES = [
    pytest.param(reader, name, writer, id=f"{reader.name}-{name}")
    for reader in READERS
    for name, writer in WRITERS[reader.name]
]


@pytest.mark.parametrize(("reader", "name", "write"), CASES)
class TestEveryReader:
    """The contract of a reader: a new one is tested once it is in READERS and can be written."""

    def test_voxels_and_places_come_back(self, reader, name, write, brain, tmp_path):
        affine = rotated_affine((5, -8, 12))
        volume = read_volume(write(tmp_path / name, brain.data, affine))
        assert volume.data.dtype == np.int16
        np.testing.assert_array_equal(volume.data, brain.data)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)

    def test_it_is_found_and_named(self, reader, name, write, brain, tmp_path):
        source = write(tmp_path / name, brain.data, brain.affine)
        assert find_sources(tmp_path) == [source]
        assert readers.format_of(source) == reader.name
        assert set(readers.source_files(source)) == {p for p in tmp_path.rglob("*") if p.is_file()}

    def test_the_header_says_what_reading_says(self, reader, name, write, brain, tmp_path):
        source = write(tmp_path / name, brain.data, rotated_affine())
        grid, volume = read_grid(source), read_volume(source)
        assert grid.shape == volume.data.shape
        np.testing.assert_array_equal(grid.affine, volume.affine)

    def test_a_truncated_file_is_reported(self, reader, name, write, brain, tmp_path):
        source = write(tmp_path / name, brain.data, brain.affine)
        largest = max(readers.source_files(source), key=lambda path: path.stat().st_size)
        os.truncate(largest, largest.stat().st_size * 2 // 3)
        with pytest.raises(
            ReadError, match=r"cannot be read as .*; is the file complete\? \(.+\)$"
        ):
            read_volume(source)

    def test_a_file_of_noise_is_reported(self, reader, name, write, brain, tmp_path):
        source = write(tmp_path / name, brain.data, brain.affine)
        for path in readers.source_files(source):
            path.write_bytes(np.random.default_rng(0).bytes(2000))
        with pytest.raises(ReadError, match="a"):
            read_volume(source)


@pytest.mark.parametrize(
    ("name", "value", "count"),
    [
        ("a.mhd", "ElementDataFile = s%03d.raw 0 24 1", 25),
        ("a.mhd", "ElementDataFile = s%d.raw 0 24", 25),
        ("a.mhd", "ElementDataFile = LIST", 25),
        ("a.nhdr", "data file: s%03d.raw 0 24 1", 25),
        ("a.nhdr", "data file: s%03d.raw 24 0 -1", 25),
        ("a.nhdr", "data file: LIST", 25),
        ("a.nhdr", "data file: s%03d.raw 0 10 0", 0),
        ("a.nhdr", "data file: s%03d.raw 0 99999999999 1", 0),
    ],
)
def test_detached_files_of_a_header_are_found_however_they_are_named(name, value, count, tmp_path):
    digits = "" if "%d" in value else "03"
    names = [f"s{number:{digits}}.raw" for number in range(25)]
    for each in (*names, "other.raw"):
        (tmp_path / each).write_bytes(b"")
    listed = "\n".join(names) if "LIST" in value else ""
    (tmp_path / name).write_text(f"NRRD0004\n{value}\n{listed}\n")
    found = readers.source_files(Source(tmp_path / name))
    assert sorted(path.name for path in found[1:]) == sorted(names[:count])


def test_nifti_is_read_as_nibabel_reads_it(brain):
    image = nibabel.load(ANATOMICAL)
    np.testing.assert_array_equal(brain.data, np.asarray(image.dataobj))
    np.testing.assert_array_equal(brain.affine, image.affine)
    assert brain.data.dtype.isnative


PAIRS = {
    "version 1": (nibabel.Nifti1Pair, "scan.hdr", "scan.img"),
    "version 2": (nibabel.Nifti2Pair, "scan.hdr", "scan.img"),
    "packed": (nibabel.Nifti1Pair, "scan.hdr.gz", "scan.img.gz"),
    "in capitals": (nibabel.Nifti1Pair, "SCAN.HDR", "SCAN.IMG"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_nifti_pair_is_one_image(name, brain, tmp_path):
    kind, header, voxels = PAIRS[name]
    written = save_nifti(tmp_path / f"a.img{header[8:]}", brain.data, brain.affine, kind)
    written.rename(tmp_path / voxels)
    next(tmp_path.glob("a.hdr*")).rename(tmp_path / header)
    (source,) = find_sources(tmp_path)
    assert (source.path.name, strip_suffix(header)) == (voxels, strip_suffix(voxels))
    assert [path.name for path in source_files(source)] == [header, voxels]
    assert np.array_equal(read_volume(source).data, brain.data)
    assert np.allclose(read_grid(source).affine, brain.affine)


def test_half_a_pair_says_what_it_lacks_and_other_files_of_its_suffixes_are_no_images(
    brain, tmp_path
):
    save_nifti(tmp_path / "a.img", brain.data, brain.affine, nibabel.Nifti1Pair)
    (tmp_path / "a.img").unlink()
    (tmp_path / "disk.img").write_bytes(b"voxels of something")
    (tmp_path / "envi.hdr").write_text("ENVI\nsamples = 3\n")
    (source,) = find_sources(tmp_path)
    with pytest.raises(ReadError, match=r"is half of a pair, whose \.img is not beside it"):
        read_volume(source)


def test_an_analyze_pair_is_an_image_that_is_refused(brain, tmp_path):
    save_nifti(tmp_path / "a.img", brain.data.astype("i2"), brain.affine, nibabel.AnalyzeImage)
    (source,) = find_sources(tmp_path)
    with pytest.raises(ReadError, match="may be ANALYZE; convert it"):
        read_volume(source)


GZIP_FAULTS = {
    "has bytes after the end of what gzip packed": lambda packed: packed + b"tail",
    "after the end of what gzip packed": lambda packed: packed + b"a longer tail of other bytes",
    "cannot be read as NIfTI; is the file complete": lambda packed: packed[:-30],
    "is the file complete": lambda packed: packed[:-3],
    "CRC": lambda packed: packed[:-8] + bytes(8),
    "cannot be read as NIfTI": lambda packed: (
        packed[:9000] + bytes([packed[9000] ^ 255]) + packed[9001:]
    ),
}


@pytest.mark.parametrize("sentence", GZIP_FAULTS)
def test_what_is_wrong_with_a_packed_file_is_said(sentence, brain, tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", brain.data, brain.affine)
    path.write_bytes(GZIP_FAULTS[sentence](path.read_bytes()))
    with pytest.raises(ReadError, match=sentence):
        read_volume(Source(path))


def test_two_packed_parts_are_one_file(brain, tmp_path):
    path = save_nifti(tmp_path / "a.nii", brain.data, brain.affine)
    content = path.read_bytes()
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    assert np.array_equal(read_volume(Source(path)).data, brain.data)


def test_nifti_2_and_gzip_without_its_suffix(brain, tmp_path):
    path = save_nifti(tmp_path / "b.nii", brain.data, brain.affine, nibabel.Nifti2Image)
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_volume(Source(path)).data, brain.data)


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"), [(1, -1024, np.int32), (0.5, 3, np.float32)]
)
def test_rescaling_keeps_integers_only_where_it_is_exact(slope, intercept, kind, brain, tmp_path):
    image = nibabel.Nifti1Image(brain.data, brain.affine)
    path = tmp_path / "a.nii"
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)
    volume = read_volume(Source(path))
    assert volume.data.dtype == kind
    np.testing.assert_allclose(volume.data, brain.data.astype(float) * slope + intercept)


def test_micrometres_become_millimetres(brain, tmp_path):
    image = nibabel.Nifti1Image(brain.data, np.diag([2000.0, 2000.0, 3000.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(
        np.diag(read_volume(Source(tmp_path / "a.nii")).affine), [2, 2, 3, 1]
    )


@pytest.mark.parametrize("kind", ["i1", "u1", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_number_types_become_plain_ones(kind, brain, tmp_path):
    data = (np.abs(brain.data) // 300).astype(kind)
    affine = brain.affine
    save_nifti(tmp_path / "a.nii", data, affine, lambda d, a: nibabel.Nifti1Image(d, a, dtype=kind))
    volume = read_volume(Source(tmp_path / "a.nii"))
    assert volume.data.dtype.itemsize <= 4
    assert (volume.data.dtype.kind == "f") == (kind[0] == "f")
    np.testing.assert_array_equal(volume.data, data)


def test_metaimage_may_name_its_modality(brain, tmp_path):
    path = save_itk(tmp_path / "a.mha", brain.data, brain.affine)
    path.write_bytes(path.read_bytes().replace(b"NDims", b"Modality = MET_MOD_CT\nNDims", 1))
    assert read_volume(Source(path)).modality == "CT"
    path.write_bytes(path.read_bytes().replace(b"MET_MOD_CT", b"MET_MOD_NM", 1))
    with pytest.raises(ReadError, match="is of another modality"):
        read_volume(Source(path))


def without_orientation(path, data, old, new):
    """A file of another format than NIfTI, whose header says no more than a spacing of 2 mm."""
    save_itk(path, data, np.diag([-2.0, -2, 2, 1]))
    content = path.read_bytes()
    for before, after in zip(old, new, strict=True):
        assert before in content
        content = content.replace(before, after, 1)
    path.write_bytes(content)
    return path


DIRECTIONS = (b"space: left-posterior-superior\n", b"space directions: (2,0,0) (0,2,0) (0,0,2)\n")
UNORIENTED = {
    "a.nrrd": ((*DIRECTIONS, b"space origin: (0,0,0)\n"), (b"", b"spacings: 2 2 2\n", b"")),
    "b.nrrd": (DIRECTIONS[:1], (b"space: scanner-xyz\n",)),
    "a.mha": (
        (b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n", b"AnatomicalOrientation = RAI\n"),
        (b"", b""),
    ),
}


@pytest.mark.parametrize("name", UNORIENTED)
def test_without_orientation_axes_are_right_anterior_superior_and_a_note_says_so(
    name, brain, tmp_path
):
    path = without_orientation(tmp_path / name, brain.data, *UNORIENTED[name])
    volume = read_volume(Source(path))
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([2, 2, 2]))
    assert volume.note == ORIENTATION_NOTE
    np.testing.assert_array_equal(volume.data, brain.data)


# bad images


def test_a_trailing_axis_of_one_is_dropped(brain, tmp_path):
    save_nifti(tmp_path / "a.nii", brain.data[..., None], brain.affine)
    assert read_volume(Source(tmp_path / "a.nii")).data.shape == brain.data.shape


def test_four_axes_are_refused():
    with pytest.raises(ReadError, match=r"has 4 axes \(128 x 96 x 24 x 2\); split it"):
        read_volume(Source(FOUR_AXES))


@pytest.mark.parametrize("shape", [(33, 41), (33, 41, 1), (1, 33, 41)])
def test_a_flat_image_is_refused(shape, brain, tmp_path):
    save_nifti(tmp_path / "a.nii", brain.data[:, :, 9].reshape(shape), brain.affine)
    with pytest.raises(ReadError, match="is a 2D image"):
        read_volume(Source(tmp_path / "a.nii"))


def test_a_flat_image_of_another_format_is_refused(tmp_path):
    SimpleITK.WriteImage(SimpleITK.Image(8, 8, SimpleITK.sitkInt16), str(tmp_path / "a.mha"))
    with pytest.raises(ReadError, match="is a 2D image"):
        read_volume(Source(tmp_path / "a.mha"))


def test_zero_spacing_is_refused_in_nifti(brain, tmp_path):
    path = save_nifti(tmp_path / "a.nii", brain.data, brain.affine)
    content = bytearray(path.read_bytes())
    content[80:84] = bytes(4)  # pixdim[1]
    content[252:256] = bytes(4)  # qform and sform codes
    path.write_bytes(content)
    with pytest.raises(ReadError, match="voxel spacing of 0 mm"):
        read_volume(Source(path))


def test_zero_spacing_is_refused_in_metaimage(brain, tmp_path):
    path = save_itk(tmp_path / "a.mha", brain.data, brain.affine)
    path.write_bytes(path.read_bytes().replace(b"Spacing = 2 2 2", b"Spacing = 0 2 2"))
    with pytest.raises(ReadError, match="voxel spacing of 0 mm"):
        read_volume(Source(path))


def test_colours_are_refused(tmp_path):
    colours = np.zeros((9, 9, 9), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    save_nifti(tmp_path / "a.nii", colours, np.eye(4))
    with pytest.raises(ReadError, match="colours"):
        read_volume(Source(tmp_path / "a.nii"))
    image = SimpleITK.Image((9, 9, 9), SimpleITK.sitkVectorUInt8, 3)
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    with pytest.raises(ReadError, match="colours"):
        read_volume(Source(tmp_path / "a.nrrd"))


def test_an_unknown_format_lists_the_known(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(ReadError, match="known are NIfTI, NRRD, MetaImage, DICOM"):
        read_volume(Source(tmp_path / "a.txt"))


# finding


def test_hidden_and_unfinished_files_are_passed_over(brain, tmp_path):
    for name in (".a.nii", ".tmp-b.nii", ".hidden/c.nii", "deep/er/d.nii"):
        save_nifti(tmp_path / name, brain.data, brain.affine)
    (tmp_path / "notes.txt").write_text("")
    assert [source.path.name for source in find_sources(tmp_path)] == ["d.nii"]


def test_a_loop_of_links_ends(brain, tmp_path):
    save_nifti(tmp_path / "z" / "a.nii", brain.data, brain.affine)
    (tmp_path / "z" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "z")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    assert [source.path for source in find_sources(tmp_path)] == [tmp_path / "z" / "a.nii"]


def test_a_folder_that_is_absent_is_reported(tmp_path):
    with pytest.raises(ReadError, match="is not there"):
        find_sources(tmp_path / "absent")


def test_stem():
    assert readers.strip_suffix("x/scan.v2.nii.gz") == "x/scan.v2"
    assert readers.strip_suffix("scan.NRRD") == "scan"
    assert readers.strip_suffix("series") == "series"
