"""Real scans from installed packages, and writers that lay volumes out as a user's files are."""

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

ANATOMICAL = Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii"
FOUR_AXES = ANATOMICAL.with_name("example4d.nii.gz")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def save_nifti(path, data, affine, kind=nibabel.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(kind(data, affine), path)
    return path


def save_itk(path, data, affine):
    """Write with SimpleITK what `data` and a RAS affine without shear say."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(data.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))
    return path


def save_dicom(folder, data, affine, modality="MR", suffix="", uid=None, **tags):
    """One file a slice along the last axis, named so that names do not give their order."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    uid = generate_uid() if uid is None else uid
    paths = []
    for number in range(data.shape[2]):
        slice_ = dcmread(get_testdata_file("CT_small.dcm"))
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SeriesInstanceUID, slice_.SOPInstanceUID = uid, generate_uid()
        slice_.StudyInstanceUID = f"{uid}.1"[-64:].lstrip(".0")  # a visit for each series
        slice_.Modality = modality
        slice_.Columns, slice_.Rows = data.shape[:2]
        slice_.PixelSpacing = [round(float(spacing[1]), 8), round(float(spacing[0]), 8)]
        directions = (lps[:3, :2] / spacing[:2]).T.ravel()
        slice_.ImageOrientationPatient = [round(float(part), 10) for part in directions]
        position = lps @ [0, 0, number, 1]
        slice_.ImagePositionPatient = [round(float(part), 8) for part in position[:3]]
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
        slice_.PixelRepresentation = 1
        slice_.PixelData = np.ascontiguousarray(data[:, :, number].T.astype("<i2")).tobytes()
        for name, value in tags.items():
            setattr(slice_, name, value)
        name = (number * 7) % data.shape[2] if data.shape[2] % 7 else number
        paths.append(folder / f"slice{name:03}{suffix}")
        slice_.save_as(paths[-1])
    return paths


def save_enhanced(path, data, affine, modality="MR", repeats=None, slopes=None, **tags):
    """One enhanced file with all frames; `repeats` gives each volume's (sequence, tag, value).

    Frames are written last slice first. Each volume after the first is twice the one before it.
    """
    repeats, slopes = repeats or [None], slopes or [(1.0, 0.0)] * data.shape[2]
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    file = dcmread(get_testdata_file("CT_small.dcm"))
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(file, tag)
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = {"MR": EnhancedMRImageStorage, "CT": EnhancedCTImageStorage}[modality]
    file.SeriesInstanceUID, file.SOPInstanceUID = generate_uid(), generate_uid()
    file.Modality, file.PixelRepresentation = modality, 1
    file.Columns, file.Rows = data.shape[:2]
    shared = Dataset()
    _group(shared, "PixelMeasuresSequence", PixelSpacing=[spacing[1], spacing[0]])
    directions = (lps[:3, :2] / spacing[:2]).T.ravel()
    _group(shared, "PlaneOrientationSequence", ImageOrientationPatient=list(directions))
    file.SharedFunctionalGroupsSequence = [shared]
    groups, pixels = [], []
    for number, mark in enumerate(repeats):
        for z in reversed(range(data.shape[2])):
            group = Dataset()
            _group(
                group, "PlanePositionSequence", ImagePositionPatient=list((lps @ [0, 0, z, 1])[:3])
            )
            slope, intercept = slopes[z]
            scale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
            _group(group, "PixelValueTransformationSequence", **scale)
            if mark:
                _group(group, mark[0], **{mark[1]: mark[2]})
            groups.append(group)
            pixels.append((data[:, :, z].T * 2**number).astype("<i2"))
    file.PerFrameFunctionalGroupsSequence, file.NumberOfFrames = groups, len(groups)
    file.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path)
    return path


def _group(dataset, sequence, **tags):
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    setattr(dataset, sequence, [item])


def rotated_affine(degrees=(0, 0, 20), spacing=(1.0, 1.5, 2.0), origin=(10.0, -20.0, 30.0)):
    """A RAS affine turned about x, y and z in that order, without shear."""
    x, y, z = np.radians(degrees)
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ about_y @ about_x * spacing
    affine[:3, 3] = origin
    return affine
