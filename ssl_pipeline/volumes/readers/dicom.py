"""DICOM series: the slices of one SeriesInstanceUID in one folder.

Pixels are decoded by SimpleITK (JPEG 2000 and the other packings included). The place of every
slice is worked out here from its header, because SimpleITK goes on with a warning where slices are
missing or unevenly spaced, and such a series must be refused. Files are known by their first bytes,
since many archives give them no extension. Objects without an image (DICOMDIR, reports, structure
sets) are passed over.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from ssl_pipeline.volumes.readers import itk
from ssl_pipeline.volumes.readers.reader import (
    Reader,
    ReadError,
    Source,
    placed,
    plain,
    three_axes,
)
from ssl_pipeline.volumes.volume import Grid, Volume

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # scanners write odd values

SUFFIXES = (".dcm", ".ima")
TAGS = [
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
]
UNEVEN = 0.1  # share of the slice distance by which a slice may lie off its even place
SAME_PLACE_MM = 0.01
TURNED = 1e-3  # difference of direction cosines between slices that are not parallel


@dataclass(frozen=True)
class _Slice:
    path: Path
    modality: str
    size: tuple[int, int]  # rows, columns
    spacing: tuple[float, ...]  # mm between rows, between columns
    rescale: tuple[float, float]  # slope, intercept
    position: NDArray[np.float64]  # of the first voxel, LPS mm
    cosines: NDArray[np.float64]  # (2, 3): along a row, along a column


def _matches(path: Path) -> bool:
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _sources(paths: list[Path]) -> list[Source]:
    found = []
    for folder in sorted({path.parent for path in paths}):
        series, unreadable = _contents(folder)
        found += [Source(folder, uid) for uid in series] + [Source(path) for path in unreadable]
    return found


def _contents(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    return _contents_at(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _contents_at(folder: Path, _changed_ns: int) -> tuple[dict[str, list[Path]], list[Path]]:
    """The slices of each series in a folder, and files that are no DICOM though named so.

    Kept until the folder changes, since a folder of many series is asked for each of them.
    """
    series: dict[str, list[Path]] = {}
    unreadable = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.name.startswith(".") or not _matches(path):
            continue
        try:
            header = pydicom.dcmread(
                path, specific_tags=["SeriesInstanceUID", "Rows"], stop_before_pixels=True
            )
        except Exception:  # pydicom raises whatever a garbled byte leads to; `read` says it again
            unreadable.append(path)
            continue
        if "Rows" in header:
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(path)
    return series, unreadable


def _files(source: Source) -> list[Path]:
    if source.path.is_file():
        return [source.path]
    series, _ = _contents(source.path)
    if source.series in series:
        return series[source.series]
    if len(series) == 1 and not source.series:
        return next(iter(series.values()))
    raise ReadError(
        f"{source.path}: holds {len(series)} DICOM series, and none is `{source.series}`."
    )


def _slice(path: Path) -> _Slice:
    header = pydicom.dcmread(path, specific_tags=[*TAGS], stop_before_pixels=True)
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise ReadError(f"{path}: is a DICOM file of many frames; convert it to NIfTI first.")
    if int(header.get("SamplesPerPixel") or 1) > 1:
        raise ReadError(f"{path}: holds colours; a volume has one number a voxel.")
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    missing = [tag for tag in needed if not header.get(tag)]
    if missing:
        raise ReadError(f"{path}: has no {missing[0]}, so its place in the body is unknown.")
    return _Slice(
        path,
        str(header.get("Modality", "")),
        (int(header.Rows), int(header.Columns)),
        tuple(float(side) for side in header.PixelSpacing),
        (float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)),
        np.array(header.ImagePositionPatient, dtype=np.float64),
        np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3),
    )


def _stack(source: Source) -> list[_Slice]:
    """The slices in the order of their places, checked to make one even block."""
    slices = [_slice(path) for path in _files(source)]
    first = slices[0]
    if len(slices) == 1:
        raise ReadError(f"{source.path}: is a series of one 2D image; a volume needs three axes.")
    if any(np.abs(each.cosines - first.cosines).max() > TURNED for each in slices):
        raise ReadError(f"{source.path}: its slices lie in different directions; separate them.")
    if any(each.size != first.size or each.spacing != first.spacing for each in slices):
        raise ReadError(f"{source.path}: its slices differ in size; separate them into series.")
    normal = np.cross(*first.cosines)
    slices.sort(key=lambda each: float(each.position @ normal))
    _check_even(source, np.array([each.position for each in slices]), normal)
    return slices


def _check_even(
    source: Source, positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> None:
    gaps = np.diff(positions @ normal)
    if gaps.min() < SAME_PLACE_MM:
        raise ReadError(
            f"{source.path}: has several slices in one place, such as echoes or time points;"
            " separate them."
        )
    even = np.linspace(positions[0], positions[-1], len(positions))
    if np.linalg.norm(positions - even, axis=1).max() > UNEVEN * np.median(gaps):
        raise ReadError(
            f"{source.path}: slices are missing or unevenly spaced"
            f" (gaps of {gaps.min():.4g} to {gaps.max():.4g} mm); copy the whole series."
        )


def _stack_grid(source: Source, slices: list[_Slice]) -> Grid:
    first, last = slices[0], slices[-1]
    rows, columns = first.size
    lps = np.eye(4)
    lps[:3, 0] = first.cosines[0] * first.spacing[1]
    lps[:3, 1] = first.cosines[1] * first.spacing[0]
    lps[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    lps[:3, 3] = first.position
    shape = three_axes(source.path, (columns, rows, len(slices)))
    return Grid(shape, placed(source.path, itk.RAS_OF_LPS @ lps))


def _decoded(slices: list[_Slice]) -> NDArray[Any]:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(each.path) for each in slices])
    if (
        len({each.rescale for each in slices}) > 1
    ):  # or the first slice's type would round the others
        reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return itk.voxels(reader.Execute())


def _grid(source: Source) -> Grid:
    return _stack_grid(source, _stack(source))


def _read(source: Source) -> Volume:
    slices = _stack(source)
    grid = _stack_grid(source, slices)
    modality = slices[0].modality if slices[0].modality in ("CT", "MR") else None
    return Volume(plain(source.path, _decoded(slices)), grid.affine, modality)


READER = Reader(
    name="DICOM",
    suffixes=SUFFIXES,
    matches=_matches,
    sources=_sources,
    files=_files,
    grid=_grid,
    read=_read,
)
