"""A label map as DICOM SEG lies where its series lies, whatever the order of its slices."""

import highdicom
import numpy as np
import pydicom
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.dicom_seg import write_dicom_seg
from ssl_pipeline.volumes.readers import find_sources, read_volume, source_files
from tests.conftest import real_volume
from tests.volumes.volume_writers import rotated_affine, save_dicom

CLASSES = {3: "bright", 7: "dark"}


@pytest.fixture
def series(tmp_path):
    """An oblique series: its files in an order that is not that of its slices, and its volume."""
    voxels = np.asarray(real_volume().dataobj)[40:72, 30:70]
    save_dicom(tmp_path / "series", voxels, rotated_affine((10, 20, 30)), modality="MR")
    (source,) = find_sources(tmp_path / "series")
    files = source_files(source)
    return files[5:] + files[:5], read_volume(source)


def label_of(volume):
    label = np.zeros(volume.data.shape, np.int16)
    label[4:9, 10:12, 3:6] = 3
    label[20:22, 30:33, 4] = 7
    return label


def test_every_labelled_voxel_comes_back_at_its_place(series, tmp_path):
    files, volume = series
    label = label_of(volume)
    out = tmp_path / "seg.dcm"
    write_dicom_seg(out, files, label, volume.affine, CLASSES, "1.0")
    seg = highdicom.seg.segread(out)
    assert [each.segment_label for each in seg.SegmentSequence] == ["bright", "dark"]
    referenced = {
        item.ReferencedSOPInstanceUID
        for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert len(referenced) == len(files)
    save_dicom(tmp_path / "label", label, volume.affine)  # the same slices, of labels
    for file in files:
        expected = pydicom.dcmread(tmp_path / "label" / file.name).pixel_array
        uid = pydicom.dcmread(file).SOPInstanceUID
        (found,) = seg.get_pixels_by_source_instance(
            [uid], combine_segments=True, assert_missing_frames_are_empty=True
        )
        assert np.array_equal(np.array([0, *CLASSES])[found], expected)


def test_the_same_label_map_gives_the_same_bytes(series, tmp_path):
    files, volume = series
    for name in ("a.dcm", "b.dcm"):
        write_dicom_seg(tmp_path / name, files, label_of(volume), volume.affine, CLASSES, "1.0")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_headers_that_lack_what_it_needs_are_one_sentence(series, tmp_path):
    files, volume = series
    for file in files:
        header = pydicom.dcmread(file)
        del header.SOPClassUID
        header.save_as(file)
    with pytest.raises(UserError, match="no DICOM SEG is written, for headers of the series lack"):
        write_dicom_seg(
            tmp_path / "seg.dcm", files, label_of(volume), volume.affine, CLASSES, "1.0"
        )
    assert not (tmp_path / "seg.dcm").exists()


def test_no_file_is_written_where_no_class_is_found(series, tmp_path):
    files, volume = series
    empty = np.zeros(volume.data.shape, np.int16)
    with pytest.raises(UserError, match="no DICOM SEG is written where no class is found"):
        write_dicom_seg(tmp_path / "seg.dcm", files, empty, volume.affine, CLASSES, "1.0")
