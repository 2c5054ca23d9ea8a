"""Reader of MetaImage, in one file (.mha) or with its voxels beside the header (.mhd).

ITK reads past much that a header says, and gives what was in memory where packed voxels are
damaged: spacing, units, orientation, scaling and packing are therefore checked here.
"""

import math
import re
from pathlib import Path

import numpy as np
from isal import isal_zlib

from ssl_pipeline.types import Affine
from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.reader import (
    ORIENTATION_NOTE,
    Reader,
    ReadError,
    one_source_per_file,
    suffix_matcher,
)

SUFFIXES = (".mha", ".mhd")
HEADER_BYTES = 8192  # in which a header ends
CHUNK_BYTES = 1 << 20
MAX_VOXEL_BYTES = 8
FIELD = re.compile(rb"^[ \t]*(\w+)[ \t]*=[ \t]*(.*?)[ \t]*\r?$", re.MULTILINE)
MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR"}
NO_MODALITIES = ("", "MET_MOD_OTHER", "MET_MOD_UNKNOWN")
MATRICES = ("TransformMatrix", "Orientation", "Rotation")
SPACINGS = ("ElementSpacing", "ElementSize")
NUMBERS = (*MATRICES, *SPACINGS, "Offset", "Position", "Origin")
SCALING = {
    "ElementToIntensityFunctionSlope": ("1", "1.0"),
    "ElementToIntensityFunctionOffset": ("0", "0.0"),
}
OWN_SIZES = ("0", "-1")  # not said, and what precedes the voxels
MM_PER_UNIT = {"": 1.0, "?": 1.0, "um": 0.001, "mm": 1.0, "cm": 10.0}
# In LPS, the direction of an axis by the letter of the side that it comes from.
DIRECTIONS = {
    "R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "I": (0, 0, 1),
    "S": (0, 0, -1),
}  # fmt: skip


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, and the byte at which it ends."""
    with open(path, "rb") as file:
        content = file.read(HEADER_BYTES)
    found: dict[str, str] = {}
    for match in FIELD.finditer(content):
        found[match[1].decode()] = match[2].decode(errors="replace")
        if match[1] == b"ElementDataFile":
            return found, match.end() + 1
    return found, len(content)


def _header(path: Path, fields: dict[str, str]) -> itk.Header:
    """What a header says that ITK does not read. Raises ReadError for what it may not say."""
    _check_numbers(path, fields)
    for name, usual in SCALING.items():
        if name in fields and fields[name] not in usual:
            raise ReadError(path, f"its header scales values ({name}), which few programs do.")
    if fields.get("ElementDataFile") == "LOCAL" and fields.get("HeaderSize", "0") not in OWN_SIZES:
        raise ReadError(path, "its header says where its voxels begin (HeaderSize), and twice.")
    modality = fields.get("Modality", "").upper()
    if modality not in (*MODALITIES, *NO_MODALITIES):
        raise ReadError(path, "is of another modality; only CT and MR are read.")
    unit = fields.get("DistanceUnits", "").lower()
    if unit not in MM_PER_UNIT:
        raise ReadError(path, "its header says a unit of length that is none (DistanceUnits).")
    direction = _direction(fields)
    is_stated = direction is not None or any(name in fields for name in MATRICES)
    return itk.Header(
        mm_per_unit=MM_PER_UNIT[unit],
        direction=direction,
        modality=MODALITIES.get(modality),
        note="" if is_stated else ORIENTATION_NOTE,
        is_lps=is_stated,
    )


def _check_numbers(path: Path, fields: dict[str, str]) -> None:
    for name in NUMBERS:
        if not _are_numbers(fields.get(name, "").split()):
            raise ReadError(path, f"its header has no numbers in {name}; write it anew.")
    spacing = next((fields[name] for name in SPACINGS if name in fields), "")
    if not spacing:
        raise ReadError(path, itk.NO_SPACING)
    itk.check_spacing(path, [float(word) for word in spacing.split()])


def _are_numbers(words: list[str]) -> bool:
    try:
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def _direction(fields: dict[str, str]) -> Affine | None:
    """The axes (3, 3) in LPS of a header that says them by letters alone."""
    letters = fields.get("AnatomicalOrientation", "").upper()
    is_known = len(letters) == 3 and all(letter in DIRECTIONS for letter in letters)
    if not is_known or any(name in fields for name in MATRICES):
        return None
    return np.array([DIRECTIONS[letter] for letter in letters], np.float64).T


def _voxel_bytes(path: Path, fields: dict[str, str], header_bytes: int) -> int | None:
    """The bytes of voxels that the image's files hold, unpacked; None where they are many files."""
    name = fields.get("ElementDataFile", "")
    data, start = (path, header_bytes) if name == "LOCAL" else (path.parent / name, 0)
    is_packed = fields.get("CompressedData", "").lower() == "true"
    if not data.is_file():
        if is_packed:
            raise ReadError(path, "is packed in several files, or its voxels are not there.")
        return None
    if not is_packed:
        return data.stat().st_size - start if name == "LOCAL" else None
    stated = fields.get("CompressedDataSize", "")
    if not stated.isdigit() or int(stated) == 0:
        what = "its header does not say the size of the packed voxels (CompressedDataSize)"
        raise ReadError(path, f"{what}; write the file anew.")
    most = math.prod(int(side) for side in fields["DimSize"].split()) * MAX_VOXEL_BYTES
    found = _unpacked_bytes(data, start, int(stated), most)
    if found is None:
        raise ReadError(path, "its packed voxels are damaged; is the file complete?")
    return found


def _unpacked_bytes(path: Path, start: int, count: int, limit: int) -> int | None:
    """The bytes that `count` bytes of a file unpack to; no more are counted above `limit`.

    None where the stream is damaged or ends early.
    """
    stream, found = isal_zlib.decompressobj(), 0
    with open(path, "rb") as file:
        file.seek(start)
        while count > 0 and found <= limit and (chunk := file.read(min(count, CHUNK_BYTES))):
            try:
                found += len(stream.decompress(chunk))
            except isal_zlib.IsalError:  # type: ignore[misc]
                return None
            count -= len(chunk)
    return found if stream.eof or found > limit else None


FORMAT = itk.TextHeaderFormat(_fields, _header, _voxel_bytes)
READER = Reader(
    name="MetaImage",
    suffixes=SUFFIXES,
    can_read=suffix_matcher(*SUFFIXES),
    find_sources=one_source_per_file,
    list_files=itk.image_files,
    read_grid=FORMAT.read_grid,
    read_volume=FORMAT.read_volume,
)
