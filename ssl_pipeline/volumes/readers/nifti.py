"""Reader of NIfTI, versions 1 and 2, compressed or not.

The voxels are taken from the file's bytes directly, and gzip is unpacked by ISA-L, about three
times as fast as zlib.
"""

import math
from pathlib import Path

import numpy as np
from isal import igzip

from ssl_pipeline.volumes.readers import nifti_header
from ssl_pipeline.volumes.readers.reader import (
    ORIENTATION_NOTE,
    Reader,
    Source,
    one_source_per_file,
    rescale,
    suffix_matcher,
    to_numeric,
)
from ssl_pipeline.volumes.volume import Volume, VoxelGrid

SUFFIXES = (".nii", ".nii.gz")


def _grid(source: Source) -> VoxelGrid:
    path = source.path
    header = nifti_header.parse_header(path, _content(path, nifti_header.HEADER_BYTES))
    return nifti_header.header_grid(path, header)


def _read(source: Source) -> Volume:
    path = source.path
    header = nifti_header.parse_header(path, _content(path, nifti_header.HEADER_BYTES))
    grid = nifti_header.header_grid(path, header)
    kind, start = nifti_header.voxel_type(path, header), nifti_header.voxel_start(path, header)
    # No more than the header states, however much is packed; one more byte checks gzip's sum.
    content = _content(path, start + math.prod(grid.shape) * kind.itemsize + 1)
    stored = np.ndarray(grid.shape, kind, content, start, order="F")
    data = rescale(stored, *nifti_header.scaling(path, header))
    note = "" if nifti_header.states_orientation(header) else ORIENTATION_NOTE
    return Volume(to_numeric(path, data), grid.affine, note=note)


def _content(path: Path, count: int) -> bytes:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with igzip.open(file, "rb") as unpacked:
                return bytes(unpacked.read(count))
        return file.read(count)


READER = Reader(
    name="NIfTI",
    suffixes=SUFFIXES,
    can_read=suffix_matcher(*SUFFIXES),
    find_sources=one_source_per_file,
    list_files=lambda source: [source.path],
    read_grid=_grid,
    read_volume=_read,
)
