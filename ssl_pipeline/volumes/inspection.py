"""What is seen when a scan is opened, and how not to open it again.

A look is kept while the file's bytes and the thresholds stay the same; only files that could not
be read are tried again. A file that was merely touched keeps the time that was recorded for it, so
that the inventory stays equal to the byte.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.atomic import sha256_file, sha256_json
from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.dataset import Root
from ssl_pipeline.volumes.readers import ReadError, Source
from ssl_pipeline.volumes.verdicts import Quality, judge

VERSION = 1  # raised when a look comes to mean something else


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one scan's files are and hold. Without `fault` the scan is fit by itself."""

    format: str  # such as "NIfTI"
    shape: tuple[int, int, int] = (0, 0, 0)  # voxels, in the file's own axis order
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: str = ""  # such as "LPS"
    file_modality: str = ""  # what the file itself says
    sha256: str = ""  # of the source's bytes
    pixels: str = ""  # hash of the voxels with their axes in canonical order
    size_bytes: int = 0
    mtime_ns: int = 0
    judged: str = ""  # hash of what the scan was judged by
    fault: str = ""


def look_at(source: Source, root: Root, quality: Quality, before: Look | None) -> Look:
    """Open a scan, hash it and judge it; or give back `before`, where nothing has changed."""
    judged = sha256_json([VERSION, quality.model_dump(), root.missing_value])
    try:
        size, mtime = _size_and_time(source)
        same = before if before and before.size_bytes == size else None
        usable = same if same and same.pixels and same.judged == judged else None
        if usable and usable.mtime_ns == mtime:
            return usable
        sha256 = fingerprint(source)
        if usable and usable.sha256 == sha256:
            return usable
        if same and same.sha256 == sha256:
            mtime = same.mtime_ns
    except FileNotFoundError:
        fault = str(readers.absent(source.path))
        return Look(format=readers.format_of(source), judged=judged, fault=fault)
    except (ReadError, OSError) as error:
        return Look(format=readers.format_of(source), judged=judged, fault=str(error))
    seen = _opened(source, root, quality)
    return replace(seen, sha256=sha256, size_bytes=size, mtime_ns=mtime, judged=judged)


def look_of(record: Look) -> Look:
    """The look that a fuller record begins with."""
    return Look(**{each.name: getattr(record, each.name) for each in fields(Look)})


def fingerprint(source: Source) -> str:
    """SHA-256 of a source's bytes; of the sorted names and hashes where it is several files."""
    paths = readers.files(source)
    if len(paths) == 1:
        return sha256_file(paths[0])
    return sha256_json(sorted((path.name, sha256_file(path)) for path in paths))


def _size_and_time(source: Source) -> tuple[int, int]:
    states = [path.stat() for path in readers.files(source)]
    return sum(each.st_size for each in states), max(each.st_mtime_ns for each in states)


def _opened(source: Source, root: Root, quality: Quality) -> Look:
    name = readers.format_of(source)
    try:
        volume = readers.read(source)
    except ReadError as error:
        return Look(format=name, fault=str(error))
    return Look(
        format=name,
        shape=volume.grid.shape,
        spacing_mm=geometry.spacing_mm(volume.affine),
        orientation=geometry.axis_codes(volume.affine),
        file_modality=volume.modality or "",
        pixels=_pixel_hash(geometry.canonical(volume).data),
        fault=judge(volume, root, quality),
    )


def _pixel_hash(data: NDArray[Any]) -> str:
    """Equal for equal voxels, whatever type of number they are stored as."""
    kind = np.float32 if data.dtype.kind == "f" else np.int32
    digest = hashlib.sha256(str(data.shape).encode())
    digest.update(np.ascontiguousarray(data, dtype=kind).data)
    return digest.hexdigest()
