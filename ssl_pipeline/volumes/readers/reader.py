"""The interface of a format's reader, and the checks that every format shares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.volume import Volume, VoxelGrid

# Of every format: where a file does not say how axes lie in the body, they are taken as they come.
ORIENTATION_NOTE = (
    "its header does not say how it lies in the body: its axes are taken as right, anterior and"
    " superior"
)

LONGER_NOTE = "its file holds more voxels than its header tells of, and they are left out"


class ReadError(UserError):
    """Why a file is not a usable volume.

    Its text is one sentence that begins with the path. `reason` leaves out the path and `details`,
    the message of the library, which may contain anything that is in the file: it can be passed on.
    """

    def __init__(self, path: Path, reason: str, details: str = "") -> None:
        super().__init__(path, reason, details)
        self.reason = reason

    def __str__(self) -> str:
        path, reason, details = self.args
        return f"{path}: {reason}" + (f" ({details})" if details else "")


@dataclass(frozen=True, order=True)
class Source:
    """Where one image lies: a file, or a folder and the UID of one DICOM series in it."""

    path: Path
    series: str = ""
    patient_id: str = field(default="", compare=False, repr=False)  # of the person, by the header
    study_uid: str = field(default="", compare=False, repr=False)  # UID of the visit, by the header
    frame_uid: str = field(default="", compare=False, repr=False)  # UID of its coordinates
    sequence: str = field(default="", compare=False, repr=False)  # such as "T1c", by the header
    # every file of a series, as it was discovered; empty where only reading it can tell
    files: tuple[Path, ...] = field(default=(), compare=False, repr=False)
    # names of files in the folder of a series that were not to be read, and are no part of it
    left_out: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Reader:
    """One format. A new one is a module with such a value, and one line in `READERS`."""

    name: str
    suffixes: tuple[str, ...]  # of file names, in lower case, with the dot
    can_read: Callable[[Path], bool]  # whether a file is of this format, by its name or first bytes
    # the images among matching files of one folder
    find_sources: Callable[[list[Path]], list[Source]]
    list_files: Callable[[Source], list[Path]]  # every file that the image is made of
    # shape and affine, without reading voxels where possible
    read_grid: Callable[[Source], VoxelGrid]
    read_volume: Callable[[Source], Volume]


def suffix_matcher(*suffixes: str) -> Callable[[Path], bool]:
    """A test for file names that end in one of `suffixes`, in any case."""
    return lambda path: path.name.lower().endswith(suffixes)


def one_source_per_file(paths: list[Path]) -> list[Source]:
    """For formats in which each file is an image."""
    return [Source(path) for path in paths]


def to_numeric(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    """Voxels as numbers of at most 32 bits in this machine's byte order.

    Integers stay integers where they fit in 32 bits with their sign; all else becomes float32.
    Raises ReadError for colours and complex numbers.
    """
    if data.dtype.kind not in "biuf":
        raise ReadError(
            path, "holds colours or complex numbers; a volume has one real number a voxel."
        )
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind in "iu" and data.dtype.itemsize <= 2:
        return data.astype(data.dtype.newbyteorder("="), copy=False)
    if data.dtype.kind in "iu" and _fits_int32(data):
        return data.astype(np.int32, copy=False)
    with np.errstate(over="ignore"):
        return data.astype(np.float32, copy=False)


def _fits_int32(data: NDArray[Any]) -> bool:
    span = np.iinfo(np.int32)
    return data.size == 0 or (int(data.min()) >= span.min and int(data.max()) <= span.max)


def rescale(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Stored values times `slope` plus `intercept`; integers stay integers where that is exact."""
    if slope == 1 and intercept == 0:
        return stored
    if slope == 1 and intercept == int(intercept) and stored.dtype.kind in "iu":
        return stored.astype(np.int64) + int(intercept)
    return stored * np.float64(slope) + intercept


def shape_3d(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape less trailing axes of length 1 beyond the third. ReadError where it is not 3D."""
    kept = shape
    while len(kept) > 3 and kept[-1] == 1:
        kept = kept[:-1]
    if len(kept) == 3 and min(kept) > 1:
        return kept[0], kept[1], kept[2]
    size = " x ".join(str(side) for side in shape)
    if len(kept) > 3:
        raise ReadError(path, f"has {len(kept)} axes ({size}); split it into one file a volume.")
    raise ReadError(path, f"is a 2D image ({size}); a volume needs three axes.")


def checked_affine(path: Path, affine: NDArray[Any]) -> NDArray[np.float64]:
    """The affine in double precision. ReadError where it does not span space."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise ReadError(path, "its header has a position or spacing that is not a number.")
    if np.linalg.norm(affine[:3, :3], axis=0).min() == 0:
        raise ReadError(path, "its header says a voxel spacing of 0 mm.")
    if np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise ReadError(path, "its header puts all voxels in one plane.")
    return affine
