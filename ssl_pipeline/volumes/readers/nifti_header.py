"""The header of NIfTI: every field that is used is checked first, and has its own sentence.

nibabel parses the block without its own checks, for these would repair a header silently, such as a
spacing of 0 mm to 1 mm.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from ssl_pipeline.volumes import geometry
from ssl_pipeline.volumes.readers.reader import ReadError, checked_affine, shape_3d
from ssl_pipeline.volumes.volume import NIFTI_INTENT, VoxelGrid

HEADER_BYTES = 540  # of version 2, the longer one
HEADERS = {348: Nifti1Header, HEADER_BYTES: Nifti2Header}
SINGLE_MAGICS, PAIR_MAGICS = (b"n+1", b"n+2"), (b"ni1", b"ni2")
EXTENSION_FLAG_BYTES = 4  # between header and voxels, also where there is no extension
MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # not stated, metres, mm, micrometres
MAX_VOXEL_OFFSET = 1 << 30
SIDE_TOLERANCE = 0.01  # relative: of what is stated twice, by rounding
MODALITY_WORDS = {"CT": "CT", "MR": "MR", "MRI": "MR"}
ECHO_TIME = re.compile(r"\bTE=(?!0+(\.0*)?(\D|$))\d")
STATISTIC_INTENTS, LABEL_INTENTS = range(2, 25), (1002, 1003)


def states_header_size(content: bytes) -> bool:
    """Whether a file's first four bytes are the size of a header of NIfTI or ANALYZE."""
    return bool(_header_size(content)[1])


def parse_header(path: Path, content: bytes, *, is_pair: bool = False) -> Nifti1Header:
    """The header at the beginning of a file of either version and byte order. Raises ReadError.

    `is_pair` says that the voxels are in a file of their own.
    """
    order, size = _header_size(content)
    if not size or len(content) < size:
        raise ReadError(path, "does not begin like a NIfTI file; is the file complete?")
    # From the block alone: reading it from a file would read the extensions too, of any length.
    header: Nifti1Header = HEADERS[size](content[:size], order, check=False)  # type: ignore[no-untyped-call]
    magic = bytes(header["magic"])[:3]
    if magic in PAIR_MAGICS and not is_pair:
        raise ReadError(path, "its header says that the voxels are in an .img file beside it.")
    if magic in SINGLE_MAGICS and is_pair:
        raise ReadError(path, "its header says that the voxels follow it; name that file .nii.")
    if magic not in (*SINGLE_MAGICS, *PAIR_MAGICS):
        raise ReadError(path, "does not say that it is NIfTI, and may be ANALYZE; convert it.")
    return header


def _header_size(content: bytes) -> tuple[str, int]:
    """Byte order and size of a header; "" and 0 where it states none that is known."""
    found = {"<": int.from_bytes(content[:4], "little"), ">": int.from_bytes(content[:4], "big")}
    return next(((order, size) for order, size in found.items() if size in HEADERS), ("", 0))


def header_grid(path: Path, header: Nifti1Header) -> VoxelGrid:
    """Shape and affine in mm. Raises ReadError."""
    shape = shape_3d(path, _sides(path, header))
    affine = checked_affine(path, _affine(path, header))
    unit = int(header["xyzt_units"]) & 7
    if unit not in MM_PER_UNIT:
        raise _header_error(path, f"the unit of length {unit}, which is none (xyzt_units)")
    affine[:3] *= MM_PER_UNIT[unit]
    return VoxelGrid(shape, affine)


def states_orientation(header: Nifti1Header) -> bool:
    """Whether the header says how the axes lie in the body."""
    return bool(header["sform_code"] != 0 or header["qform_code"] != 0)


def disagreement(header: Nifti1Header) -> str:
    """What is to be said of a header that states the grid twice, and otherwise; else empty."""
    if header["sform_code"] == 0:
        return ""
    affine = header.get_sform()
    sides, stated = geometry.spacing_mm(affine), header["pixdim"][1:4]
    if stated.min() > 0 and not np.allclose(sides, stated, rtol=SIDE_TOLERANCE):
        first, second = (" x ".join(f"{side:.4g}" for side in each) for each in (sides, stated))
        return f"its header says two voxel sizes, {first} (sform, which counts) and {second}"
    turned = _qform(header) if header["qform_code"] != 0 else None
    if turned is None or geometry.axis_codes(turned) == geometry.axis_codes(affine):
        return ""
    first, second = (geometry.axis_codes(each) for each in (affine, turned))
    return f"its header says two orientations, {first} (sform, which counts) and {second} (qform)"


def modality(header: Nifti1Header) -> str | None:
    """The modality that `descrip` says: its name, or the echo time that converters write of MR."""
    text = bytes(header["descrip"]).split(b"\0")[0].decode(errors="replace").strip()
    return MODALITY_WORDS.get(text.upper()) or ("MR" if ECHO_TIME.search(text) else None)


def image_type(header: Nifti1Header) -> tuple[str, ...]:
    """What `intent_code` says that the voxels are, where they are no measured values."""
    code = int(header["intent_code"])
    if code in STATISTIC_INTENTS:
        return (f"{NIFTI_INTENT}STATISTIC",)
    return (f"{NIFTI_INTENT}LABEL",) if code in LABEL_INTENTS else ()


def voxel_start(path: Path, header: Nifti1Header) -> int:
    """The byte at which the voxels begin: as the header says, or behind it where it says 0."""
    is_pair = bytes(header["magic"])[:3] in PAIR_MAGICS
    least = 0 if is_pair else header.sizeof_hdr + EXTENSION_FLAG_BYTES
    stated = float(header["vox_offset"])
    if stated == 0:  # as older writers leave it
        return least
    if not (least <= stated <= MAX_VOXEL_OFFSET and stated.is_integer()):
        raise _header_error(path, f"that the voxels begin at byte {stated:g} (vox_offset)")
    return int(stated)


def voxel_type(path: Path, header: Nifti1Header) -> np.dtype[Any]:
    """The type of the stored numbers. Raises ReadError."""
    code, bits = int(header["datatype"]), int(header["bitpix"])
    try:
        kind: np.dtype[Any] = header.get_data_dtype()
    except (KeyError, HeaderDataError):
        kind = np.dtype("V")
    if not kind.itemsize:
        raise _header_error(path, f"a type of number that is not known, {code} (datatype)")
    if bits not in (0, 8 * kind.itemsize):
        raise _header_error(
            path, f"two sizes of a voxel: {bits} bits (bitpix) and {8 * kind.itemsize} (datatype)"
        )
    return kind


def scaling(path: Path, header: Nifti1Header) -> tuple[float, float]:
    """Slope and intercept of the values; 1 and 0 where the header says none. Raises ReadError."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):  # both mean that the values are as stored
        return 1.0, 0.0
    for name, value in (("scl_slope", slope), ("scl_inter", intercept)):
        if not np.isfinite(value):
            raise _header_error(path, f"that values are scaled by {value:g} ({name})")
    return slope, intercept


def _sides(path: Path, header: Nifti1Header) -> tuple[int, ...]:
    """Voxels along each axis."""
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise _header_error(path, f"that it has {axes} axes (dim)")
    sides = tuple(int(side) for side in header["dim"][1 : axes + 1])
    if min(sides) < 1:
        raise _header_error(path, f"that it has {min(sides)} voxels along an axis (dim)")
    return sides


def _affine(path: Path, header: Nifti1Header) -> Any:
    """Voxel index to RAS+ in the header's own unit: by sform, else by qform, else by spacing."""
    if header["sform_code"] != 0:
        return header.get_sform()
    spacing, turn = header["pixdim"][1:4], header["pixdim"][0]
    if spacing.min() < 0:
        raise _header_error(path, f"a voxel spacing of {spacing.min():g} mm (pixdim)")
    if not states_orientation(header):
        return np.diag([*spacing, 1.0])
    if turn not in (-1, 0, 1):
        raise _header_error(path, f"that its third axis is turned by {turn:g} (pixdim[0])")
    found = _qform(header)
    if found is None:
        raise _header_error(path, "a rotation that is none (quatern_b, c, d)")
    return found


def _qform(header: Nifti1Header) -> Any:
    """The affine (4, 4) of the quaternion; None where it is no rotation."""
    own = header.copy()
    own["pixdim"][0] = -1 if header["pixdim"][0] == -1 else 1  # 0 means 1, by the standard
    try:
        return own.get_qform()
    except (ValueError, HeaderDataError):
        return None


def _header_error(path: Path, statement: str) -> ReadError:
    return ReadError(path, f"its header says {statement}; write the file anew.")
