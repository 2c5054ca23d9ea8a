"""Inspection of one scan: hashes, grid, quality, thumbnail and keypoints, with reuse.

The result is reused while the file's bytes and the thresholds stay the same; only files that could
not be read are tried again. A file that was merely touched keeps the time that was recorded for it,
so that the inventory stays equal to the byte. What a scan is compared by, the hash of its voxels
and its keypoints, outlives its rejection: a copy that is damaged or rejected must move no other
scan to another subject or split.
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
from ssl_pipeline.volumes.review import Decision
from ssl_pipeline.volumes.thumbnails import thumbnail
from ssl_pipeline.volumes.walk import FileState

VERSION = 7  # raise it when the result of an inspection changes its meaning


@dataclass(frozen=True, kw_only=True)
class ScanInfo:
    """Format, grid, hashes and faults of one scan's files. Without `fault` it is usable."""

    format: str  # such as "NIfTI"
    shape: tuple[int, int, int] = (0, 0, 0)  # voxels, in the file's own axis order
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    orientation: str = ""  # such as "LPS"
    file_modality: str = ""  # modality in the file's own header
    sha256: str = ""  # of the source's bytes
    # hash of the values with their axes in canonical order, also of a scan that was readable once;
    # empty for a constant, which says nothing of whom it shows
    voxel_hash: str = ""
    size_bytes: int = 0
    files_hash: str = ""  # hash of the names, sizes and times of its files
    criteria_hash: str = ""  # hash of the thresholds and settings of its quality control
    fault: str = ""
    repair: str = ""  # what was done to make it usable
    note: str = ""  # what had to be assumed
    review: str = ""  # the reader's acceptance, and the fault that it lifted


@dataclass(frozen=True)
class ScanCheck:
    """Scan information, a JPEG thumbnail if the scan opened, keypoints if it is or was usable."""

    info: ScanInfo
    thumbnail: bytes = b""
    keypoints: Keypoints | None = None

    @property
    def is_complete(self) -> bool:
        """Whether thumbnail and keypoints are there, as far as the scan can have them."""
        return bool(self.thumbnail) and (self.keypoints is not None or bool(self.info.fault))


def inspect_scan(
    source: Source,
    root: Root,
    modality: str,
    thresholds: QualityThresholds,
    previous: ScanCheck | None,
    decision: Decision | None = None,
) -> ScanCheck:
    """Open, hash and check a scan; or return `previous` where nothing has changed.

    `modality` is what is known beforehand; it counts where the file's own header says none.
    `decision` is a reader's, where there is one; it is void for files of another content.
    """
    check = _inspect(source, root, modality, thresholds, previous, decision)
    if previous is None or check is previous or not check.info.fault:
        return check
    return _with_earlier_evidence(check, previous)


def _inspect(
    source: Source,
    root: Root,
    modality: str,
    thresholds: QualityThresholds,
    previous: ScanCheck | None,
    decision: Decision | None,
) -> ScanCheck:
    criteria = [VERSION, thresholds.model_dump(), root.missing_value, root.intensity_offset]
    criteria_hash = sha256_json([*criteria, modality, *(decision.outcome if decision else ())])
    name = readers.format_of(source)
    try:
        size, state = size_and_state(source)
        same = previous if previous and previous.info.size_bytes == size else None
        usable = (
            same if same and same.info.criteria_hash == criteria_hash and same.is_complete else None
        )
        if usable and usable.info.files_hash == state:
            return usable
        sha256 = source_sha256(source)
        if usable and usable.info.sha256 == sha256:
            return usable
        if same and same.info.sha256 == sha256:
            state = same.info.files_hash
    except FileNotFoundError:
        fault = readers.missing_error(source.path).reason
        return ScanCheck(ScanInfo(format=name, criteria_hash=criteria_hash, fault=fault))
    except PermissionError:
        return ScanCheck(
            ScanInfo(
                format=name,
                criteria_hash=criteria_hash,
                fault=readers.unreadable_error(source.path).reason,
            )
        )
    except (ReadError, OSError) as error:  # a link in a circle is there, and is not
        own = error if isinstance(error, ReadError) and source.path.exists() else None
        fault = (own or readers.missing_error(source.path)).reason
        return ScanCheck(ScanInfo(format=name, criteria_hash=criteria_hash, fault=fault))
    seen = decision if decision and decision.sha256 == sha256 else None
    check = _open_scan(source, root, modality, thresholds, seen)
    info = replace(
        check.info,
        sha256=sha256,
        size_bytes=size,
        files_hash=state,
        criteria_hash=criteria_hash,
    )
    return replace(check, info=info)


def _with_earlier_evidence(check: ScanCheck, previous: ScanCheck) -> ScanCheck:
    """A rejected scan, which stays linked to its copies by what it held when it was readable."""
    voxel_hash = previous.info.voxel_hash or check.info.voxel_hash
    return replace(
        check,
        info=replace(check.info, voxel_hash=voxel_hash),
        keypoints=previous.keypoints or check.keypoints,
    )


def modality_note(info: ScanInfo, declared: str) -> str:
    """What is to be said where the study declares another modality than the file's own header."""
    own = info.file_modality
    if not declared or not own or declared == own:
        return ""
    return f"its header says {own} and the study {declared}: the header counts"


def scan_info_of(record: ScanInfo) -> ScanInfo:
    """The `ScanInfo` part of a fuller record."""
    return ScanInfo(**{each.name: getattr(record, each.name) for each in fields(ScanInfo)})


def source_sha256(source: Source) -> str:
    """SHA-256 of a source's bytes; of the sorted names and hashes where it is several files."""
    paths = readers.source_files(source)
    if len(paths) == 1:
        return sha256_file(paths[0])
    return sha256_json(sorted((path.name, sha256_file(path)) for path in paths))


def size_and_state(source: Source) -> tuple[int, str]:
    """Bytes of a source's files, and a hash of the name, size and times of each."""
    states = [(path.name, FileState.of(path.stat())) for path in readers.source_files(source)]
    return sum(state.size for _, state in states), sha256_json(sorted(states))


def _open_scan(
    source: Source,
    root: Root,
    modality: str,
    thresholds: QualityThresholds,
    decision: Decision | None,
) -> ScanCheck:
    name = readers.format_of(source)
    try:
        fault = size_fault(readers.read_grid(source), thresholds)
        if fault:
            return ScanCheck(ScanInfo(format=name, fault=fault))
        volume = readers.read_volume(source).with_missing_value(root.missing_value)
    except ReadError as error:
        return ScanCheck(ScanInfo(format=name, fault=error.reason))
    straight = geometry.to_canonical(volume)
    quality = check_quality(volume, root, thresholds, volume.modality or modality, decision)
    info = ScanInfo(
        format=name,
        shape=volume.grid.shape,
        spacing_mm=geometry.spacing_mm(volume.affine),
        orientation=geometry.axis_codes(volume.affine),
        file_modality=volume.modality or "",
        voxel_hash=voxel_hash(straight.data, root.intensity_offset) if quality.holds_image else "",
        fault=quality.fault,
        repair=quality.repair,
        note="; ".join(note for note in (volume.note, quality.note) if note),
        review=quality.review,
    )
    missing = volume.missing_value
    is_compared = not quality.fault or quality.is_rejected_in_review
    points = detect_keypoints(straight, missing) if is_compared else None
    return ScanCheck(info, thumbnail(straight, missing), points)


def voxel_hash(data: NDArray[Any], intensity_offset: float = 0.0) -> str:
    """Hash of a scan's shape and values, whatever type of number they are stored as.

    `data` (x, y, z) has its axes in canonical order; `intensity_offset` is added to it. Values are
    hashed as int32 where all are whole numbers, else as float32.
    """
    whole = data.dtype.kind in "iu" and intensity_offset.is_integer()
    kind = np.int32 if whole else np.float32
    values: NDArray[Any] = data.astype(kind, copy=False)
    if intensity_offset:
        values = values + kind(intensity_offset)
    if not whole:
        values = _as_whole_numbers(values)
    digest = hashlib.sha256(str(values.shape).encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _as_whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """float32 as int32 where that loses nothing, else with one bit pattern for 0 and for NaN."""
    with np.errstate(invalid="ignore"):  # NaN, and what is too large for int32, is not equal to it
        for part in (values[:1], values):  # one plane shows most images to be none
            whole = part.astype(np.int32)
            if not np.array_equal(whole, part):
                return np.where(np.isnan(values), np.float32(np.nan), values + np.float32(0))
    return whole
