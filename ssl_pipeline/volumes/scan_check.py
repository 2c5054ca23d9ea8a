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

from ssl_pipeline.io.atomic import sha256_file, sha256_json
from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.config import Root
from ssl_pipeline.volumes.duplicates.keypoints import Keypoints, detect_keypoints
from ssl_pipeline.volumes.quality_control import QualityThresholds, check_quality, size_fault
from ssl_pipeline.volumes.readers import ReadError, Source
from ssl_pipeline.volumes.thumbnails import thumbnail

VERSION = 4  # raised when a look comes to mean something else


@dataclass(frozen=True, kw_only=True)
class ScanInfo:
    """What one scan's files are and hold. Without `fault` the scan is fit by itself."""

    format: str  # such as "NIfTI"
    shape: tuple[int, int, int] = (0, 0, 0)  # voxels, in the file's own axis order
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: str = ""  # such as "LPS"
    file_modality: str = ""  # what the file itself says
    sha256: str = ""  # of the source's bytes
    voxel_hash: str = ""  # hash of the voxels with their axes in canonical order
    size_bytes: int = 0
    mtime_ns: int = 0
    criteria_hash: str = ""  # hash of what the scan was judged by
    fault: str = ""
    repair: str = ""  # what had to be done for it to be fit


@dataclass(frozen=True)
class ScanCheck:
    """A look, the scan's thumbnail as JPEG if it could be opened, its keypoints if it is fit."""

    info: ScanInfo
    thumbnail: bytes = b""
    keypoints: Keypoints | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it is lost."""
        return bool(self.thumbnail) and (self.keypoints is not None or bool(self.info.fault))


def inspect_scan(
    source: Source,
    root: Root,
    modality: str,
    thresholds: QualityThresholds,
    previous: ScanCheck | None,
) -> ScanCheck:
    """Open a scan, hash it and judge it; or give back `before`, where nothing has changed.

    `modality` is what is known of it beforehand; where it is empty, the file's word counts.
    """
    judged = sha256_json(
        [VERSION, thresholds.model_dump(), root.missing_value, root.intensity_offset, modality]
    )
    name = readers.format_of(source)
    try:
        size, mtime = _size_and_time(source)
        same = previous if previous and previous.info.size_bytes == size else None
        usable = same if same and same.info.criteria_hash == judged and same.is_complete else None
        if usable and usable.info.mtime_ns == mtime:
            return usable
        sha256 = source_sha256(source)
        if usable and usable.info.sha256 == sha256:
            return usable
        if same and same.info.sha256 == sha256:
            mtime = same.info.mtime_ns
    except FileNotFoundError:
        fault = readers.missing_error(source.path).reason
        return ScanCheck(ScanInfo(format=name, criteria_hash=judged, fault=fault))
    except PermissionError:
        return ScanCheck(
            ScanInfo(
                format=name,
                criteria_hash=judged,
                fault=readers.unreadable_error(source.path).reason,
            )
        )
    except (ReadError, OSError) as error:  # a link in a circle is there, and is not
        told = error if isinstance(error, ReadError) and source.path.exists() else None
        fault = (told or readers.missing_error(source.path)).reason
        return ScanCheck(ScanInfo(format=name, criteria_hash=judged, fault=fault))
    seen = _open_scan(source, root, modality, thresholds)
    look = replace(seen.info, sha256=sha256, size_bytes=size, mtime_ns=mtime, criteria_hash=judged)
    return replace(seen, info=look)


def scan_info_of(record: ScanInfo) -> ScanInfo:
    """The look that a fuller record begins with."""
    return ScanInfo(**{each.name: getattr(record, each.name) for each in fields(ScanInfo)})


def source_sha256(source: Source) -> str:
    """SHA-256 of a source's bytes; of the sorted names and hashes where it is several files."""
    paths = readers.source_files(source)
    if len(paths) == 1:
        return sha256_file(paths[0])
    return sha256_json(sorted((path.name, sha256_file(path)) for path in paths))


def _size_and_time(source: Source) -> tuple[int, int]:
    states = [path.stat() for path in readers.source_files(source)]
    return sum(each.st_size for each in states), max(each.st_mtime_ns for each in states)


def _open_scan(
    source: Source, root: Root, modality: str, thresholds: QualityThresholds
) -> ScanCheck:
    name = readers.format_of(source)
    try:
        fault = size_fault(readers.read_grid(source), thresholds)
        if fault:
            return ScanCheck(ScanInfo(format=name, fault=fault))
        volume = readers.read_volume(source)
    except ReadError as error:
        return ScanCheck(ScanInfo(format=name, fault=error.reason))
    straight = geometry.to_canonical(volume)
    verdict = check_quality(volume, root, thresholds, modality or volume.modality or "")
    look = ScanInfo(
        format=name,
        shape=volume.grid.shape,
        spacing_mm=geometry.spacing_mm(volume.affine),
        orientation=geometry.axis_codes(volume.affine),
        file_modality=volume.modality or "",
        voxel_hash=_voxel_hash(straight.data),
        fault=verdict.fault,
        repair=verdict.repair,
    )
    missing = root.missing_value
    points = None if verdict.fault else detect_keypoints(straight, missing)
    return ScanCheck(look, thumbnail(straight, missing), points)


def _voxel_hash(data: NDArray[Any]) -> str:
    """Equal for equal voxels, whatever type of number they are stored as."""
    kind = np.float32 if data.dtype.kind == "f" else np.int32
    digest = hashlib.sha256(str(data.shape).encode())
    digest.update(np.ascontiguousarray(data, dtype=kind).data)
    return digest.hexdigest()
