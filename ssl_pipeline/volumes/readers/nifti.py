"""Reader of NIfTI, versions 1 and 2, compressed or not, in one file or as a pair.

The voxels are taken from the file's bytes directly, and gzip is unpacked by ISA-L, about three
times as fast as zlib. A pair is a header (.hdr) and its voxels beside it (.img), after which its
scan is called.
"""

import math
import zlib
from gzip import BadGzipFile
from pathlib import Path

import numpy as np
from isal import igzip, isal_zlib
from nibabel.nifti1 import Nifti1Header

from ssl_pipeline.volumes.readers import nifti_header
from ssl_pipeline.volumes.readers.reader import (
    LONGER_NOTE,
    ORIENTATION_NOTE,
    Reader,
    ReadError,
    Source,
    rescale,
    suffix_matcher,
    to_numeric,
)
from ssl_pipeline.volumes.volume import Volume, VoxelGrid

SINGLE_SUFFIXES = (".nii", ".nii.gz")
HEADER_SUFFIXES, VOXEL_SUFFIXES = (".hdr", ".hdr.gz"), (".img", ".img.gz")
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # zlib's number for gzip
CHUNK_BYTES = 1 << 16

_is_single = suffix_matcher(*SINGLE_SUFFIXES)
_is_header = suffix_matcher(*HEADER_SUFFIXES)
_is_voxels = suffix_matcher(*VOXEL_SUFFIXES)


def _can_read(path: Path) -> bool:
    """By its name; of a pair's names, which other formats use too, by the header's first bytes."""
    if _is_single(path):
        return True
    header = path if _is_header(path) else _partner(path, HEADER_SUFFIXES)
    if header is None:
        return False
    try:
        return nifti_header.states_header_size(_content(header, 4))
    except (OSError, ReadError):
        return True  # and reading it tells what is wrong


def _partner(path: Path, suffixes: tuple[str, ...]) -> Path | None:
    """The other file of a pair; None where there is none, or where `path` is no part of a pair."""
    own = [s for s in (*HEADER_SUFFIXES, *VOXEL_SUFFIXES) if path.name.lower().endswith(s)]
    if not own:
        return None
    stem = path.name[: -len(own[-1])]
    names = [stem + name for suffix in suffixes for name in (suffix, suffix.upper())]
    return next((each for each in map(path.with_name, names) if each.is_file()), None)


def _sources(paths: list[Path]) -> list[Source]:
    """One for each file, and for each pair, of which one part suffices."""
    found = {_partner(path, VOXEL_SUFFIXES) or path if _is_header(path) else path for path in paths}
    return [Source(path) for path in sorted(found)]


def _files(source: Source) -> list[Path]:
    """Header and voxels, which are one file where it is no pair. Raises ReadError."""
    path = source.path
    if _is_single(path):
        return [path]
    header = path if _is_header(path) else _partner(path, HEADER_SUFFIXES)
    voxels = path if _is_voxels(path) else _partner(path, VOXEL_SUFFIXES)
    if header is None or voxels is None:
        lacking = ".hdr" if header is None else ".img"
        raise ReadError(path, f"is half of a pair, whose {lacking} is not beside it.")
    return [header, voxels]


def _header(source: Source) -> tuple[Path, Nifti1Header]:
    """The file of the voxels, and the header."""
    header, *voxels = _files(source)
    content = _content(header, nifti_header.HEADER_BYTES)
    parsed = nifti_header.parse_header(source.path, content, is_pair=bool(voxels))
    return (voxels or [header])[0], parsed


def _grid(source: Source) -> VoxelGrid:
    return nifti_header.header_grid(source.path, _header(source)[1])


def _read(source: Source) -> Volume:
    path = source.path
    file, header = _header(source)
    grid = nifti_header.header_grid(path, header)
    kind, start = nifti_header.voxel_type(path, header), nifti_header.voxel_start(path, header)
    # No more than the header states, however much is packed; one more byte checks gzip's sum.
    end = start + math.prod(grid.shape) * kind.itemsize
    content = _content(file, end + 1)
    stored = np.ndarray(grid.shape, kind, content, start, order="F")
    data = rescale(stored, *nifti_header.scaling(path, header))
    notes = (
        "" if nifti_header.states_orientation(header) else ORIENTATION_NOTE,
        nifti_header.disagreement(header),
        LONGER_NOTE if len(content) > end else "",
    )
    return Volume(
        to_numeric(path, data),
        grid.affine,
        nifti_header.modality(header),
        nifti_header.image_type(header),
        note="; ".join(note for note in notes if note),
    )


def _content(path: Path, count: int) -> bytes:
    """The first bytes of a file, unpacked. Raises ReadError where gzip's stream is damaged."""
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if not packed:
            return file.read(count)
        try:
            with igzip.open(file, "rb") as unpacked:
                return bytes(unpacked.read(count))
        except (EOFError, BadGzipFile, isal_zlib.IsalError) as error:  # type: ignore[misc]
            if _has_bytes_after_gzip(path):
                what = "has bytes after the end of what gzip packed; pack the file anew."
                raise ReadError(path, what) from error
            raise


def _has_bytes_after_gzip(path: Path) -> bool:
    """Whether something follows a sound stream of gzip that is no other such stream."""
    with open(path, "rb") as file:
        stream, rest = zlib.decompressobj(GZIP_WINDOW), b""
        while chunk := rest or file.read(CHUNK_BYTES):
            try:
                stream.decompress(chunk)
            except zlib.error:
                return False
            rest = stream.unused_data
            if stream.eof and rest:
                if not rest.startswith(GZIP_MAGIC):
                    return True
                stream = zlib.decompressobj(GZIP_WINDOW)
    return False


READER = Reader(
    name="NIfTI",
    suffixes=(*SINGLE_SUFFIXES, *HEADER_SUFFIXES, *VOXEL_SUFFIXES),
    can_read=_can_read,
    find_sources=_sources,
    list_files=_files,
    read_grid=_grid,
    read_volume=_read,
)
