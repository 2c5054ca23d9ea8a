"""A label map as DICOM Segmentation (SEG) that references the slices of its series; by highdicom.

Voxels of the label map go to the pixels whose centres lie in them, by the geometry of each slice's
header alone, so the order of files does not matter. Dates and identifiers are functions of the
content: the same label map gives the same bytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import atomic_write

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import Dataset

SERIES_NUMBER = 900  # of the segmentation, beyond those that scanners give
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
MANUFACTURER = "ssl-pipeline"


def write_dicom_seg(
    out: Path,
    files: Sequence[Path],
    label_map: NDArray[np.int16],
    affine: NDArray[np.float64],
    classes: Mapping[int, str],
    version: str,
) -> None:
    """Write a label map (x, y, z) of the grid `affine`, which the slices in `files` make up.

    Raises UserError where the series has one file with all its slices, lacks what DICOM SEG needs
    of its headers, or shows no class.
    """
    try:
        segmentation = _build_segmentation(files, label_map, affine, classes, version)
    except (UserError, OSError):
        raise
    except Exception as error:  # highdicom and pydicom raise anything over an incomplete header
        raise UserError(
            "no DICOM SEG is written, for headers of the series lack what it needs: "
            f"{type(error).__name__} {error}."
        ) from error
    with atomic_write(out) as temporary:
        segmentation.save_as(temporary)


def _build_segmentation(
    files: Sequence[Path],
    label_map: NDArray[np.int16],
    affine: NDArray[np.float64],
    classes: Mapping[int, str],
    version: str,
) -> "Segmentation":
    import highdicom
    import pydicom
    from highdicom.seg import Segmentation, SegmentationTypeValues

    slices = [pydicom.dcmread(file, force=True, stop_before_pixels=True) for file in files]
    if any(int(each.get("NumberOfFrames", 1)) > 1 for each in slices):
        raise UserError("no DICOM SEG is written for a series of multi-frame files.")
    frames = np.stack([_on_slice(label_map, affine, each) for each in slices])
    if not frames.any():
        raise UserError("no DICOM SEG is written where no class is found.")
    order = np.zeros(max(classes) + 1, np.uint8)  # segments are numbered from 1
    order[list(classes)] = np.arange(1, len(classes) + 1)
    digest = hashlib.sha256(frames.tobytes()).hexdigest()
    own = [slices[0].SeriesInstanceUID, digest, version]
    segmentation = Segmentation(
        source_images=slices,
        pixel_array=order[frames],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, name, version) for number, name in enumerate(classes.values(), start=1)
        ],
        series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["series", *own]),
        series_number=SERIES_NUMBER,
        sop_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["instance", *own]),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=version,
        device_serial_number=highdicom.__version__,
    )
    organization = pydicom.uid.generate_uid(entropy_srcs=["dimensions", *own])
    _make_reproducible(segmentation, slices[0], organization)
    return segmentation


def _on_slice(
    label_map: NDArray[np.int16], affine: NDArray[np.float64], of: "Dataset"
) -> NDArray[np.int16]:
    """The label map at the pixels (row, column) of a slice."""
    across, down = np.array(of.ImageOrientationPatient, np.float64).reshape(2, 3)
    row_mm, column_mm = (float(mm) for mm in of.PixelSpacing)
    to_voxel = np.linalg.inv(affine)
    first = np.array(of.ImagePositionPatient, np.float64) * LPS_TO_RAS
    start = to_voxel[:3, :3] @ first + to_voxel[:3, 3]
    by_row, by_column = (
        to_voxel[:3, :3] @ (step * LPS_TO_RAS) for step in (down * row_mm, across * column_mm)
    )
    rows, columns = np.ix_(np.arange(of.Rows), np.arange(of.Columns))
    places = [
        np.rint(at + r * rows + c * columns).astype(np.int64)
        for at, r, c in zip(start, by_row, by_column, strict=True)
    ]
    inside = np.ones((of.Rows, of.Columns), np.bool_)
    for place, size in zip(places, label_map.shape, strict=True):
        inside &= (place >= 0) & (place < size)
    x, y, z = (np.where(inside, place, 0) for place in places)
    found: NDArray[np.int16] = np.where(inside, label_map[x, y, z], np.int16(0))
    return found


def _segment(number: int, name: str, version: str) -> "SegmentDescription":
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = AlgorithmIdentificationSequence(
        name=MANUFACTURER, family=codes.DCM.ArtificialIntelligence, version=version
    )
    return SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=Code(str(number), "99SSLPIPELINE", name[:64]),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )


def _make_reproducible(segmentation: "Dataset", source: "Dataset", organization: str) -> None:
    """The date of the study in place of today's, and a given UID in place of a random one."""
    date, time = source.get("StudyDate") or "19000101", source.get("StudyTime") or "000000"
    values = {
        **dict.fromkeys(("ContentDate", "InstanceCreationDate", "SeriesDate"), date),
        **dict.fromkeys(("ContentTime", "InstanceCreationTime", "SeriesTime"), time),
        "ContributionDateTime": f"{date}{time}",
        "DimensionOrganizationUID": organization,
    }
    for element in segmentation.iterall():
        if element.keyword in values:
            element.value = values[element.keyword]
