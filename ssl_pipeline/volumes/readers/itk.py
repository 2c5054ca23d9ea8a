"""Shared parts of the readers that use SimpleITK: axes, affine and warnings.

ITK states positions in LPS and gives arrays as (z, y, x); both are turned once, here.
"""

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ssl_pipeline.formatting import escape_bytes
from ssl_pipeline.types import Affine
from ssl_pipeline.volumes.readers.reader import (
    LONGER_NOTE,
    ReadError,
    Source,
    checked_affine,
    shape_3d,
    to_numeric,
)
from ssl_pipeline.volumes.volume import Volume, VoxelGrid

SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)

# ITK's library for NRRD notes errors in one list for all threads: two bad files at once crash it.
READ_LOCK = Lock()
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MAX_GZIP_RATIO = 1100  # voxels of a byte in a byte of gzip, which packs 1,032 at most
DETACHED_HEADER_SUFFIXES = (".nhdr", ".mhd")
NUMBERED_FILES = re.compile(  # printf's pattern of a name, and its first number, last and step
    r"(?P<start>[^%]*)%(?P<zero>0?)(?P<width>\d{0,2})d(?P<end>[^%]*?)"
    r"\s+(?P<first>-?\d+)\s+(?P<last>-?\d+)(?:\s+(?P<step>-?\d+))?(?:\s+\d+)?"
)
MAX_NUMBERED_FILES = 100_000
NO_SPACING = "its header does not say how far its voxels are apart; write the spacing into it."


@dataclass(frozen=True, eq=False)
class Header:
    """What the header of a file says beside what ITK reads of it.

    `direction` (3, 3) are the axes in LPS where ITK does not read them, and `is_lps` says whether
    the header knows of the body at all, where ITK would assume LPS.
    """

    mm_per_unit: float = 1.0
    direction: Affine | None = None
    modality: str | None = None
    note: str = ""
    is_lps: bool = True


def check_spacing(path: Path, sides: Sequence[float]) -> None:
    """Raise ReadError for sides of a voxel that are none: ITK takes 1 mm, or turns the axis."""
    if not np.isfinite(sides).all():
        raise ReadError(path, "its header has a spacing that is not a number.")
    if min(sides) < 0:
        raise ReadError(path, "its header says a negative voxel spacing.")
    if min(sides) == 0:
        raise ReadError(path, "its header says a voxel spacing of 0 mm.")


@dataclass(frozen=True)
class TextHeaderFormat:
    """A format whose header, lines of text, is read and checked beside what ITK reads of it."""

    read_fields: Callable[[Path], tuple[dict[str, str], int]]  # and the byte at which they end
    check_fields: Callable[[Path, dict[str, str]], Header]
    # The bytes of voxels that the image's files hold; None where that is not known.
    count_voxel_bytes: Callable[[Path, dict[str, str], int], int | None]

    def read_grid(self, source: Source) -> VoxelGrid:
        """Shape and affine from the file's header alone."""
        fields, _ = self.read_fields(source.path)
        return _read_grid(source, self.check_fields(source.path, fields))

    def read_volume(self, source: Source) -> Volume:
        """Read one file that holds one image. Raises ReadError where it holds too few voxels."""
        fields, header_bytes = self.read_fields(source.path)
        header = self.check_fields(source.path, fields)
        voxel_bytes = self.count_voxel_bytes(source.path, fields, header_bytes)
        return _read_volume(source, header, voxel_bytes)


def _read_grid(source: Source, header: Header) -> VoxelGrid:
    with READ_LOCK, _open_reader(source) as reader:
        return _grid(source.path, reader, header)


def _read_volume(source: Source, header: Header, voxel_bytes: int | None) -> Volume:
    with READ_LOCK, _open_reader(source) as reader:
        grid = _grid(source.path, reader, header)
        if reader.GetNumberOfComponents() > 1:
            what = "holds colours or vectors; a volume has one number a voxel."
            raise ReadError(source.path, what)
        _check_size(source, grid)
        data = voxel_array(reader.Execute()).reshape(grid.shape, order="F")
    if voxel_bytes is not None and voxel_bytes < data.nbytes:
        raise ReadError(source.path, "holds fewer voxels than its header says; is it complete?")
    is_longer = voxel_bytes is not None and voxel_bytes > data.nbytes
    notes = (header.note, LONGER_NOTE if is_longer else "")
    return Volume(
        to_numeric(source.path, data),
        grid.affine,
        header.modality,
        note="; ".join(note for note in notes if note),
    )


def voxel_array(image: SimpleITK.Image) -> NDArray[Any]:
    """A copy of an image's voxels, with axes (x, y, z)."""
    return np.asarray(SimpleITK.GetArrayFromImage(image)).T


def image_files(source: Source) -> list[Path]:
    """A header file and the files that it names; or a file that is whole in itself."""
    if source.path.suffix.lower() not in DETACHED_HEADER_SUFFIXES:
        return [source.path]
    lines = source.path.read_text(errors="surrogateescape").replace("=", ":").splitlines()
    words = [word for line in lines for word in _named_files(line.rpartition(":")[2].strip())]
    named = {source.path.parent / word for word in words if word}
    # os.path, because Path.is_file raises for a comment that is too long to be a name
    return [source.path, *sorted(path for path in named if os.path.isfile(path))]  # noqa: PTH113


def _named_files(value: str) -> list[str]:
    """The names that a header's value may stand for: itself, or `s%03d.raw FIRST LAST STEP`."""
    numbered = NUMBERED_FILES.fullmatch(value)
    if numbered is None:
        return [value]
    first, last, step = (int(numbered[name] or 1) for name in ("first", "last", "step"))
    if step == 0 or abs(last - first) // abs(step) >= MAX_NUMBERED_FILES:
        return []
    numbers = range(first, last + (1 if step > 0 else -1), step)
    start, end = numbered["start"], numbered["end"]
    width, fill = int(numbered["width"] or 0), "0" if numbered["zero"] else ""
    return [f"{start}{number:{fill}{width or 1}d}{end}" for number in numbers]


def _check_size(source: Source, grid: VoxelGrid) -> None:
    """Refuse a header that claims more than its files can hold, before ITK asks for memory."""
    held = sum(path.stat().st_size for path in image_files(source))
    if math.prod(grid.shape) > MAX_GZIP_RATIO * held:
        size = " x ".join(str(side) for side in grid.shape)
        raise ReadError(
            source.path,
            f"says that it has {size} voxels, but holds {held} bytes; is the file complete?",
        )


@contextmanager
def _open_reader(source: Source) -> Iterator[SimpleITK.ImageFileReader]:
    """A reader that has read the header."""
    reader = SimpleITK.ImageFileReader()
    with _utf8_path(source) as path:
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            if "Zero-valued spacing" in str(error):
                what = "its header says a voxel spacing of 0 mm."
                raise ReadError(source.path, what) from error
            raise
        yield reader


@contextmanager
def _utf8_path(source: Source) -> Iterator[Path]:
    """The path of an image, or of a link to it: a path that is not UTF-8 would abort the process.

    The files below its folder that its header names are linked beside it.
    """
    path = source.path
    if path == Path(escape_bytes(str(path))):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, f"image{path.suffix}")
        for file in image_files(source):
            place = os.path.relpath(file, path.parent)
            if place.startswith(os.pardir):
                continue
            beside = link if file == path else Path(folder) / place
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(file.absolute())
        yield link


def _grid(path: Path, reader: SimpleITK.ImageFileReader, header: Header) -> VoxelGrid:
    shape = shape_3d(path, tuple(reader.GetSize()))
    axes = len(reader.GetSize())
    direction = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3]
    if header.direction is not None:
        direction = header.direction
    lps = np.eye(4)
    lps[:3, :3] = direction * np.asarray(reader.GetSpacing()[:3])
    lps[:3, 3] = reader.GetOrigin()[:3]
    lps[:3] *= header.mm_per_unit
    to_ras = LPS_TO_RAS if header.is_lps else np.eye(4)
    return VoxelGrid(shape, checked_affine(path, to_ras @ lps))
