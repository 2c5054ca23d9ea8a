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
from ssl_pipeline.volumes.keypoints import Keypoints, keypoints
from ssl_pipeline.volumes.readers import ReadError, Source
from ssl_pipeline.volumes.thumbnails import thumbnail
from ssl_pipeline.volumes.verdicts import Quality, judge, too_large

VERSION = 4  # raised when a look comes to mean something else


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
    repair: str = ""  # what had to be done for it to be fit


@dataclass(frozen=True)
class Seen:
    """A look, the scan's thumbnail as JPEG if it could be opened, its keypoints if it is fit."""

    look: Look
    thumbnail: bytes = b""
    keypoints: Keypoints | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing of it is lost."""
        return bool(self.thumbnail) and (self.keypoints is not None or bool(self.look.fault))


def look_at(
    source: Source, root: Root, modality: str, quality: Quality, before: Seen | None
) -> Seen:
    """Open a scan, hash it and judge it; or give back `before`, where nothing has changed.

    `modality` is what is known of it beforehand; where it is empty, the file's word counts.
    """
    judged = sha256_json(
        [VERSION, quality.model_dump(), root.missing_value, root.intensity_offset, modality]
    )
    name = readers.format_of(source)
    try:
        size, mtime = _size_and_time(source)
        same = before if before and before.look.size_bytes == size else None
        usable = same if same and same.look.judged == judged and same.whole else None
        if usable and usable.look.mtime_ns == mtime:
            return usable
        sha256 = fingerprint(source)
        if usable and usable.look.sha256 == sha256:
            return usable
        if same and same.look.sha256 == sha256:
            mtime = same.look.mtime_ns
    except FileNotFoundError:
        fault = readers.absent(source.path).what
        return Seen(Look(format=name, judged=judged, fault=fault))
    except PermissionError:
        return Seen(Look(format=name, judged=judged, fault=readers.closed(source.path).what))
    except (ReadError, OSError) as error:  # a link in a circle is there, and is not
        told = error if isinstance(error, ReadError) and source.path.exists() else None
        fault = (told or readers.absent(source.path)).what
        return Seen(Look(format=name, judged=judged, fault=fault))
    seen = _opened(source, root, modality, quality)
    look = replace(seen.look, sha256=sha256, size_bytes=size, mtime_ns=mtime, judged=judged)
    return replace(seen, look=look)


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


def _opened(source: Source, root: Root, modality: str, quality: Quality) -> Seen:
    name = readers.format_of(source)
    try:
        fault = too_large(readers.header(source), quality)
        if fault:
            return Seen(Look(format=name, fault=fault))
        volume = readers.read(source)
    except ReadError as error:
        return Seen(Look(format=name, fault=error.what))
    straight = geometry.canonical(volume)
    verdict = judge(volume, root, quality, modality or volume.modality or "")
    look = Look(
        format=name,
        shape=volume.grid.shape,
        spacing_mm=geometry.spacing_mm(volume.affine),
        orientation=geometry.axis_codes(volume.affine),
        file_modality=volume.modality or "",
        pixels=_pixel_hash(straight.data),
        fault=verdict.fault,
        repair=verdict.repair,
    )
    missing = root.missing_value
    points = None if verdict.fault else keypoints(straight, missing)
    return Seen(look, thumbnail(straight, missing), points)


def _pixel_hash(data: NDArray[Any]) -> str:
    """Equal for equal voxels, whatever type of number they are stored as."""
    kind = np.float32 if data.dtype.kind == "f" else np.int32
    digest = hashlib.sha256(str(data.shape).encode())
    digest.update(np.ascontiguousarray(data, dtype=kind).data)
    return digest.hexdigest()
