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


def decode_frames(frames: list[Frame]) -> tuple[NDArray[Any], float | None]:
    """The frames, in this order, as an array (columns, rows, frames), rescaled.

    Also the value that all padding has in it, None where there is none.
    """
    numbers: dict[Path, list[int]] = {}
    for frame in frames:
        numbers.setdefault(frame.path, []).append(frame.number)
    found = {
        (path, number): values
        for path, own in numbers.items()
        for number, values in zip(own, _stored_values(path)[own], strict=True)
    }
    slices = [found[frame.path, frame.number] for frame in frames]
    stack = np.stack(slices, axis=-1).transpose(1, 0, 2)
    padded = [
        _is_padding(values, frame.padding) for values, frame in zip(slices, frames, strict=True)
    ]
    slopes, intercepts = zip(*(frame.rescale for frame in frames), strict=True)
    if len(set(slopes)) == len(set(intercepts)) == 1:
        rescaled = rescale(stack, slopes[0], intercepts[0])
    else:
        rescaled = stack * np.array(slopes, np.float32) + np.array(intercepts, np.float32)
    if not any(mask is not None and mask.any() for mask in padded):
        return rescaled, None
    return _with_one_padding(rescaled, padded)


def _is_padding(stored: NDArray[Any], padding: tuple[int, int] | None) -> NDArray[np.bool_] | None:
    """Which values of a frame (rows, columns) are padding; None where its header names none.

    The header may have the number's sign otherwise than the voxels: 63536 is -2000 in 16 bits.
    """
    if padding is None or stored.dtype.kind not in "iu":
        return None
    bits = (1 << 8 * stored.dtype.itemsize) - 1
    unsigned = np.dtype(f"u{stored.dtype.itemsize}")
    low, high = sorted(np.array([value & bits for value in padding], unsigned).view(stored.dtype))
    return np.asarray((stored >= low) & (stored <= high), np.bool_)


def _with_one_padding(
    rescaled: NDArray[Any], padded: list[NDArray[np.bool_] | None]
) -> tuple[NDArray[Any], float]:
    """The voxels with one value in all padding, and this value: just below all that are measured.

    A range of padding, or slices with slopes of their own, give padding many values.
    """
    kind = rescaled.dtype if rescaled.dtype.itemsize > 2 else np.int32  # has room for one more
    data = rescaled.astype(kind)
    masks = [np.zeros(data.shape[1::-1], np.bool_) if mask is None else mask for mask in padded]
    outside = np.stack(masks, axis=-1).transpose(1, 0, 2)
    lowest = float(data.min(where=~outside, initial=0 if outside.all() else data.max()))
    value = float(np.floor(lowest - max(1.0, abs(lowest) / 1000)))  # float32 tells them apart
    data[outside] = value
    return data, value


def _stored_values(path: Path) -> NDArray[Any]:
    """A file's values as they are stored (frames, rows, columns)."""
    file = read_file(path)
    file.PhotometricInterpretation = "MONOCHROME2"  # whose header is checked, in any case
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
