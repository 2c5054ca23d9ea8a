"""Reader of NIfTI, versions 1 and 2, compressed or not.

The header is read by nibabel without its repairs, for these would turn a spacing of 0 mm silently
into 1 mm. The voxels are taken from the file's bytes directly, and gzip is unpacked by ISA-L, about
three times as fast as zlib.
"""

import math
from pathlib import Path

import numpy as np
from isal import igzip
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from ssl_pipeline.volumes.readers.reader import (
    Reader,
    ReadError,
    Source,
    checked_affine,
    one_source_per_file,
    rescale,
    shape_3d,
    suffix_matcher,
    to_numeric,
)
from ssl_pipeline.volumes.volume import Volume, VoxelGrid

SUFFIXES = (".nii", ".nii.gz")
HEADER_BYTES = 540  # of version 2, the longer one
HEADERS = {348: Nifti1Header, HEADER_BYTES: Nifti2Header}
MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metres and micrometres; anything else is taken as mm


def _grid(source: Source) -> VoxelGrid:
    header = _header(source.path, _content(source.path, HEADER_BYTES))
    return _header_grid(source.path, header)


def _read(source: Source) -> Volume:
    header = _header(source.path, _content(source.path, HEADER_BYTES))
    grid = _header_grid(source.path, header)
    kind, start = header.get_data_dtype(), int(header["vox_offset"])
    # No more than the header states, however much is packed; one more byte checks gzip's sum.
    content = _content(source.path, start + math.prod(grid.shape) * kind.itemsize + 1)
    stored = np.ndarray(grid.shape, kind, content, start, order="F")
    slope, intercept = header.get_slope_inter()
    data = rescale(stored, slope or 1.0, intercept or 0.0)
    return Volume(to_numeric(source.path, data), grid.affine)


def _content(path: Path, count: int) -> bytes:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with igzip.open(file, "rb") as unpacked:
                return bytes(unpacked.read(count))
        return file.read(count)


def _header(path: Path, content: bytes) -> Nifti1Header:
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    size, kind = next(((n, kind) for n, kind in HEADERS.items() if n in sizes), (0, None))
    if kind is None or len(content) < size:
        raise ReadError(path, "does not begin like a NIfTI file; is the file complete?")
    # From the block alone: reading it from a file would read the extensions too, of any length.
    header: Nifti1Header = kind(content[:size], check=False)  # type: ignore[no-untyped-call]
    return header


def _header_grid(path: Path, header: Nifti1Header) -> VoxelGrid:
    shape = shape_3d(path, tuple(int(side) for side in header.get_data_shape()))
    affine = checked_affine(path, header.get_best_affine())
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return VoxelGrid(shape, affine)


READER = Reader(
    name="NIfTI",
    suffixes=SUFFIXES,
    can_read=suffix_matcher(*SUFFIXES),
    find_sources=one_source_per_file,
    list_files=lambda source: [source.path],
    read_grid=_grid,
    read_volume=_read,
)
