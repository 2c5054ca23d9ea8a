"""Readers of volumes, one module per format: discovery, grid, voxels and files of an image.

A new format is a module with a `READER` and one line in `READERS`. Whatever a library raises about
a bad file becomes one sentence here, in one place.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ssl_pipeline.volumes import walk
from ssl_pipeline.volumes.readers import dicom, metaimage, nifti, nrrd
from ssl_pipeline.volumes.readers.reader import Reader, ReadError, Source
from ssl_pipeline.volumes.volume import Volume, VoxelGrid

__all__ = [
    "READERS",
    "ReadError",
    "Reader",
    "Source",
    "find_sources",
    "format_of",
    "known_files",
    "missing_error",
    "read_grid",
    "read_volume",
    "source_files",
    "sources_among",
    "strip_suffix",
    "unreadable_error",
    "unused_files",
]

READERS: tuple[Reader, ...] = (nifti.READER, nrrd.READER, metaimage.READER, dicom.READER)

T = TypeVar("T")


def find_sources(root: Path) -> list[Source]:
    """Every image below `root`, or at `root` if that is a file, sorted; none where there is none.

    A folder of DICOM gives one image a series, and one that may not be listed an image that cannot
    be read. Raises UserError where `root` is absent or may not be listed.
    """
    if not root.exists():
        raise missing_error(root)
    return sources_among(walk.RawFiles().below(root))


def sources_among(folders: Iterable[Sequence[Path]]) -> list[Source]:
    """The images among files that are listed by folder, sorted."""
    return sorted(source for paths in folders for source in _images(paths))


def _images(paths: Sequence[Path]) -> list[Source]:
    by_reader: dict[str, list[Path]] = {}
    locked = [path for path in paths if walk.is_unlistable(path)]
    for path in sorted(set(paths) - set(locked)):
        reader = next((reader for reader in READERS if reader.can_read(path)), None)
        if reader:
            by_reader.setdefault(reader.name, []).append(path)
    return [Source(path) for path in locked] + [
        source
        for reader in READERS
        if reader.name in by_reader
        for source in reader.find_sources(by_reader[reader.name])
    ]


def read_volume(source: Source) -> Volume:
    """Read an image whole. Raises ReadError, one sentence, where it is not a usable volume."""
    reader = _reader(source)
    return _with_read_errors(reader, source, reader.read_volume)


def read_grid(source: Source) -> VoxelGrid:
    """An image's shape and affine, without its voxels where the format allows. Raises ReadError."""
    reader = _reader(source)
    return _with_read_errors(reader, source, reader.read_grid)


def source_files(source: Source) -> list[Path]:
    """Every file that an image is made of. Raises ReadError."""
    reader = _reader(source)
    return _with_read_errors(reader, source, reader.list_files)


def known_files(source: Source) -> list[Path]:
    """The files of an image as far as they are known: where it cannot be read, its own path."""
    try:
        return source_files(source)
    except ReadError:
        return [source.path]


def unused_files(folders: Iterable[Sequence[Path]], sources: Iterable[Source]) -> list[Path]:
    """Of files that are listed by folder, those that are part of none of these images."""
    used = {path for source in sources for path in known_files(source)}
    return [path for paths in folders for path in paths if path not in used]


def format_of(source: Source) -> str:
    """The name of an image's format, such as "NIfTI"."""
    return _reader(source).name


def strip_suffix(name: str) -> str:
    """A file's name or path without the suffix of its format: "a/b.nii.gz" gives "a/b"."""
    for suffix in sorted((s for reader in READERS for s in reader.suffixes), key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def missing_error(path: Path) -> ReadError:
    """The error for a file that cannot be found."""
    return ReadError(path, "is a link to nothing." if path.is_symlink() else "is not there.")


def unreadable_error(path: Path) -> ReadError:
    """The error for a file or folder that may not be read."""
    return ReadError(path, "may not be read; ask for read access.")


def _reader(source: Source) -> Reader:
    if source.path.is_dir():
        return dicom.READER
    for reader in READERS:
        if reader.can_read(source.path):
            return reader
    known = ", ".join(reader.name for reader in READERS)
    raise ReadError(source.path, f"is of no known format; known are {known}.")


def _with_read_errors(reader: Reader, source: Source, work: Callable[[Source], T]) -> T:
    try:
        return work(source)
    except ReadError:
        raise
    except FileNotFoundError:
        raise missing_error(source.path) from None
    except PermissionError:
        raise unreadable_error(source.path) from None
    except MemoryError:
        raise ReadError(source.path, "needs more memory than there is.") from None
    except Exception as error:  # libraries raise anything over a garbled file
        what = f"cannot be read as {reader.name}; is the file complete?"
        raise ReadError(source.path, what, _one_line(error, source.path)) from error


def _one_line(error: Exception, path: Path) -> str:
    """The gist of an error: no C++ source lines, no addresses, which differ from run to run."""
    text = re.split(r"(?:ITK |sitk::)ERROR: ", str(error))[-1].replace(str(path), "the file")
    text = re.sub(r"\(0x[0-9a-f]+\)", "", text)
    return " ".join(text.split())[:160].rstrip(".") or type(error).__name__
