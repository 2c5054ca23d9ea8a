"""Decoding of the voxels of a stack of DICOM frames, classic or enhanced.

pydicom parses a file, because it asks for no more memory than the file has bytes, whatever lengths
a garbled one claims (GDCM was seen to take 4 GiB for 10 KB). Uncompressed and RLE values it decodes
too; for all other encodings GDCM, through SimpleITK, gets a copy of the file that holds nothing but
its pixels. So it never sees a slope: of an enhanced file it would apply one frame's to all, and
here each frame's own is.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, RLELossless

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.dicom_file import read_file
from ssl_pipeline.volumes.readers.dicom_headers import Frame
from ssl_pipeline.volumes.readers.reader import ReadError, rescale

PIXEL_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)


def decode_frames(frames: list[Frame]) -> NDArray[Any]:
    """The frames, in this order, as an array (columns, rows, frames), rescaled."""
    numbers: dict[Path, list[int]] = {}
    for frame in frames:
        numbers.setdefault(frame.path, []).append(frame.number)
    found = {
        (path, number): values
        for path, own in numbers.items()
        for number, values in zip(own, _stored_values(path)[own], strict=True)
    }
    stack = np.stack([found[frame.path, frame.number] for frame in frames], axis=-1)
    slopes, intercepts = zip(*(frame.rescale for frame in frames), strict=True)
    if len(set(slopes)) == len(set(intercepts)) == 1:
        return rescale(stack.transpose(1, 0, 2), slopes[0], intercepts[0])
    scaled = stack * np.array(slopes, np.float32) + np.array(intercepts, np.float32)
    return scaled.transpose(1, 0, 2)


def _stored_values(path: Path) -> NDArray[Any]:
    """A file's values as they are stored (frames, rows, columns)."""
    file = read_file(path)
    packing = file.file_meta.TransferSyntaxUID
    if not packing.is_encapsulated and file["PixelData"].is_undefined_length:
        raise ReadError(path, "does not say how it is packed; its TransferSyntaxUID is missing.")
    if not packing.is_encapsulated or packing == RLELossless:
        values: NDArray[Any] = file.pixel_array
    else:
        values = _decompress(file)
    return values.reshape(-1, int(file.Rows), int(file.Columns))


def _decompress(file: pydicom.Dataset) -> NDArray[Any]:
    bare = pydicom.Dataset()
    for name in PIXEL_TAGS:
        if name in file:
            bare[name] = file[name]
    count = int(file.get("NumberOfFrames") or 1)
    # Packed anew, because lengths inside the pixels may be garbled too.
    bare.PixelData = encapsulate(list(generate_frames(file.PixelData, number_of_frames=count)))
    bare.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    bare.SOPInstanceUID = pydicom.uid.generate_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = file.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "pixels.dcm"
        bare.save_as(copy, enforce_file_format=True)
        return itk.voxel_array(SimpleITK.ReadImage(str(copy), imageIO="GDCMImageIO")).T
