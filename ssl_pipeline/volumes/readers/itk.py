"""What the formats that SimpleITK reads have in common: its axes, its affine, its silence.

ITK says positions in LPS and gives arrays as (z, y, x); both are turned once, here.
"""

import math
import os
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from ssl_pipeline.volumes.readers.reader import ReadError, Source, placed, plain, three_axes
from ssl_pipeline.volumes.volume import Grid, Volume

SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)

# ITK's library for NRRD notes errors in one list for all threads: two bad files at once crash it.
ALONE = Lock()
RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MOST_PACKED = 1100  # voxels of a byte in a byte of gzip, which packs 1,032 at most
HEADERS_ALONE = (".nhdr", ".mhd")
MODALITIES = {"MET_MOD_CT": "CT", "MET_MOD_MR": "MR"}  # as MetaImage says it


def grid(source: Source) -> Grid:
    """Shape and affine from the file's header alone."""
    with ALONE:
        return _grid(source.path, _opened(source.path))


def read(source: Source) -> Volume:
    """Read one file that holds one image."""
    with ALONE:
        return _read(source)


def _read(source: Source) -> Volume:
    reader = _opened(source.path)
    place = _grid(source.path, reader)
    if reader.GetNumberOfComponents() > 1:
        raise ReadError(source.path, "holds colours or vectors; a volume has one number a voxel.")
    _check_size(source, place)
    data = voxels(reader.Execute()).reshape(place.shape, order="F")
    said = reader.GetMetaData("Modality") if reader.HasMetaDataKey("Modality") else ""
    return Volume(plain(source.path, data), place.affine, MODALITIES.get(said))


def voxels(image: SimpleITK.Image) -> NDArray[Any]:
    """A copy of an image's voxels, with axes (x, y, z)."""
    return np.asarray(SimpleITK.GetArrayFromImage(image)).T


def companions(source: Source) -> list[Path]:
    """A header file and the files that it names; or a file that is whole in itself."""
    if source.path.suffix.lower() not in HEADERS_ALONE:
        return [source.path]
    lines = source.path.read_text(errors="ignore").replace("=", ":").splitlines()
    words = (line.rpartition(":")[2].strip() for line in lines)
    named = {source.path.parent / word for word in words if word}
    # os.path, because Path.is_file raises for a comment that is too long to be a name
    return [source.path, *sorted(path for path in named if os.path.isfile(path))]  # noqa: PTH113


def _check_size(source: Source, place: Grid) -> None:
    """Refuse a header that tells of more than its files can pack, before ITK asks for memory."""
    held = sum(path.stat().st_size for path in companions(source))
    if math.prod(place.shape) > MOST_PACKED * held:
        size = " x ".join(str(side) for side in place.shape)
        raise ReadError(
            source.path,
            f"says that it has {size} voxels, but holds {held} bytes; is the file complete?",
        )


def _opened(path: Path) -> SimpleITK.ImageFileReader:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "Zero-valued spacing" in str(error):
            raise ReadError(path, "its header says a voxel spacing of 0 mm.") from error
        raise
    return reader


def _grid(path: Path, reader: SimpleITK.ImageFileReader) -> Grid:
    shape = three_axes(path, tuple(reader.GetSize()))
    axes = len(reader.GetSize())
    direction = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3]
    lps = np.eye(4)
    lps[:3, :3] = direction * np.asarray(reader.GetSpacing()[:3])
    lps[:3, 3] = reader.GetOrigin()[:3]
    return Grid(shape, placed(path, RAS_OF_LPS @ lps))
