"""Reader of DICOM series: the images of one SeriesInstanceUID, split into volumes.

The position of every slice is computed here from its header, because SimpleITK continues with a
warning where slices are missing or unevenly spaced; the spacing is returned with the volume, and
checked by quality control. Files are recognised by their content, since many archives give them no
extension. Objects without an image (DICOMDIR, reports, structure sets) are skipped.
`dicom_file` opens files, `dicom_headers` reads headers, `dicom_split` splits a series,
`dicom_pixels` decodes.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.dicom_file import is_dicom
from ssl_pipeline.volumes.readers.dicom_headers import MODALITIES, Frame, read_frames
from ssl_pipeline.volumes.readers.dicom_pixels import decode_frames
from ssl_pipeline.volumes.readers.dicom_split import (
    MAX_VOLUMES,
    SAME_POSITION_MM,
    max_frames_per_position,
    measure_slice_spacing,
    split_series,
    unique_frames,
)
from ssl_pipeline.volumes.readers.reader import (
    Reader,
    ReadError,
    Source,
    checked_affine,
    shape_3d,
    to_numeric,
)
from ssl_pipeline.volumes.volume import SliceSpacing, Volume, VoxelGrid

SUFFIXES = (".dcm", ".ima")


def _matches(path: Path) -> bool:
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        return is_dicom(path)
    except OSError:
        return False


def _sources(paths: list[Path]) -> list[Source]:
    found, wanted = [], set(paths)
    for folder in sorted({path.parent for path in paths}):
        left_out = tuple(path.name for path in _dicom_files(folder) if path not in wanted)
        volumes, unreadable = _contents(folder, left_out)
        found += [
            Source(
                folder,
                name,
                patient_id=frames[0].patient_id,
                study_uid=frames[0].study_uid,
                frame_uid=frames[0].frame_uid,
                sequence=frames[0].sequence,
                files=_paths(frames),
                left_out=left_out,
            )
            for name, frames in volumes.items()
        ]
        found += [Source(path) for path in unreadable]
    return found


def _dicom_files(folder: Path) -> list[Path]:
    return _dicom_files_at(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _dicom_files_at(folder: Path, _changed_ns: int) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [path for path in files if not path.name.startswith(".") and _matches(path)]


def _contents(folder: Path, left_out: tuple[str, ...]) -> tuple[dict[str, list[Frame]], list[Path]]:
    return _contents_at(folder, folder.stat().st_mtime_ns, left_out)


@lru_cache(maxsize=16)
def _contents_at(
    folder: Path, _changed_ns: int, left_out: tuple[str, ...]
) -> tuple[dict[str, list[Frame]], list[Path]]:
    """The volumes in a folder by name (UID, or UID#part), and files that cannot be read.

    Kept until the folder changes, since a folder of many series is asked for each of them.
    """
    series: dict[str, list[Frame]] = {}
    unreadable = []
    names = {path.name: path for path in _dicom_files(folder)}
    for path in (names[name] for name in sorted(names.keys() - left_out)):
        try:
            for frame in read_frames(path):
                series.setdefault(frame.series_uid, []).append(frame)
        except (
            Exception
        ):  # pydicom raises whatever a garbled byte leads to; `read_frames` raises it again later
            unreadable.append(path)
    volumes = {
        f"{uid}#{name}" if name else uid: frames
        for uid, whole in series.items()
        for name, frames in split_series(whole).items()
    }
    return volumes, unreadable


def _frames(source: Source) -> list[Frame]:
    if source.path.is_file():
        volumes = split_series(read_frames(source.path))
    else:
        volumes, _ = _contents(source.path, source.left_out)
    if source.series in volumes:
        return volumes[source.series]
    if len(volumes) == 1 and not source.series:
        return next(iter(volumes.values()))
    raise ReadError(
        source.path, f"holds {len(volumes)} DICOM volumes, and none is the one that was asked for."
    )


def _files(source: Source) -> list[Path]:
    if source.path.is_file():
        return [source.path]
    return list(source.files or _paths(_frames(source)))


def _paths(frames: list[Frame]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(frame.path for frame in frames))


def _stack(source: Source) -> list[Frame]:
    """The frames sorted by position. ReadError where they make no stack of slices."""
    frames = unique_frames(_frames(source))
    fault = next((frame for frame in frames if frame.fault), None)
    if fault:
        raise ReadError(fault.path, f"{fault.fault}.")
    if len(frames) == 1:
        scout = "a localizer of" if "LOCALIZER" in frames[0].image_type else "a series of"
        raise ReadError(source.path, f"is {scout} one 2D image; a volume needs three axes.")
    _check_positions(source, frames)
    normal = frames[0].normal
    return sorted(frames, key=lambda frame: float(frame.position @ normal))


def _check_positions(source: Source, frames: list[Frame]) -> None:
    deepest = max_frames_per_position(frames)
    if deepest == len(frames):
        raise ReadError(
            source.path,
            f"says one position for all of its {deepest} slices: it is a film of one slice, or the"
            " positions were lost.",
        )
    if deepest > MAX_VOLUMES:
        raise ReadError(
            source.path,
            f"is a 4D series with up to {deepest} images in one place (time points,"
            f" directions or phases); at most {MAX_VOLUMES} are taken apart.",
        )
    heights = np.sort([frame.position @ frames[0].normal for frame in frames])
    if deepest > 1 or np.diff(heights).min() < SAME_POSITION_MM:
        raise ReadError(
            source.path,
            "has several slices in one place, and nothing in their headers tells"
            " them apart; separate them.",
        )


def _slice_spacing(frames: list[Frame]) -> SliceSpacing:
    return measure_slice_spacing(np.array([frame.position for frame in frames]), frames[0].normal)


def _stack_grid(source: Source, frames: list[Frame]) -> VoxelGrid:
    first, last = frames[0], frames[-1]
    rows, columns = first.size
    lps = np.eye(4)
    lps[:3, 0] = first.cosines[0] * first.spacing[1]
    lps[:3, 1] = first.cosines[1] * first.spacing[0]
    lps[:3, 2] = (last.position - first.position) / (len(frames) - 1)
    lps[:3, 3] = first.position
    shape = shape_3d(source.path, (columns, rows, len(frames)))
    return VoxelGrid(shape, checked_affine(source.path, itk.LPS_TO_RAS @ lps))


def _grid(source: Source) -> VoxelGrid:
    return _stack_grid(source, _stack(source))


def _read(source: Source) -> Volume:
    frames = _stack(source)
    grid = _stack_grid(source, frames)
    first, copies = frames[0], len(_frames(source)) - len(frames)
    data, padding = decode_frames(frames)
    return Volume(
        to_numeric(source.path, data),
        grid.affine,
        first.modality if first.modality in MODALITIES else None,
        first.image_type,
        _slice_spacing(frames),
        f"{copies} copies of its slices were left out" if copies else "",
        _patient_note(source),
        missing_value=padding,
    )


def _patient_note(source: Source) -> str:
    """What is to be said where series of several people had one UID, or none."""
    is_shared = source.series.partition("#")[2].startswith("patient")
    return "images of other patients have its SeriesInstanceUID" if is_shared else ""


READER = Reader(
    name="DICOM",
    suffixes=SUFFIXES,
    can_read=_matches,
    find_sources=_sources,
    list_files=_files,
    read_grid=_grid,
    read_volume=_read,
)
