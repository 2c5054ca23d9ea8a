"""The voxels of a stack of DICOM frames.

SimpleITK (GDCM) decodes a stack of classic files, whatever their packing, and applies each slice's
slope. Of an enhanced file it would apply one frame's slope to all, so there the stored values are
taken, and each frame's own slope is applied here: pydicom gives them where they lie plain or as
RLE; other packings are handed to GDCM in a copy of the file that holds nothing but its pixels.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, RLELossless

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.dicom_frames import Frame
from ssl_pipeline.volumes.readers.reader import rescaled

PIXELS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


def voxels(frames: list[Frame]) -> NDArray[Any]:
    """The frames, in this order, as an array (columns, rows, frames), rescaled."""
    if all(frame.count == 1 for frame in frames):
        return _classic(frames)
    files = {path: _stored(path) for path in dict.fromkeys(frame.path for frame in frames)}
    slices = [files[frame.path][frame.number] for frame in frames]
    slopes = {frame.rescale for frame in frames}
    if len(slopes) == 1:
        return rescaled(np.stack(slices).T, *slopes.pop())
    return np.stack(
        [each * np.float32(f.rescale[0]) + np.float32(f.rescale[1]) for each, f in
         zip(slices, frames, strict=True)]
    ).T  # fmt: skip


def _classic(frames: list[Frame]) -> NDArray[Any]:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(frame.path) for frame in frames])
    if len({frame.rescale for frame in frames}) > 1:  # or the first's type would round the others
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return itk.voxels(reader.Execute())


def _stored(path: Path) -> NDArray[Any]:
    """A file's values as they are stored (frames, rows, columns)."""
    file = pydicom.dcmread(path)
    packing = file.file_meta.TransferSyntaxUID
    if not packing.is_encapsulated or packing == RLELossless:
        values: NDArray[Any] = file.pixel_array
    else:
        values = _unpacked(file)
    return values.reshape(-1, int(file.Rows), int(file.Columns))


def _unpacked(file: pydicom.Dataset) -> NDArray[Any]:
    bare = pydicom.Dataset()
    for name in PIXELS:
        if name in file:
            bare[name] = file[name]
    bare.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    bare.SOPInstanceUID = pydicom.uid.generate_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = file.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "pixels.dcm"
        bare.save_as(copy, enforce_file_format=True)
        return itk.voxels(SimpleITK.ReadImage(str(copy))).T
