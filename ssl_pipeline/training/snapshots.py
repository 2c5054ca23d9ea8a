"""Snapshot images of a run: reconstructions and attention maps at the end of each quarter.

Middle slices of a few crops of the snapshot samples, in a file of some kilobytes each. Arrays,
(n, y, x) in model input: `input`, `masked` (nan where hidden), `reconstruction` (hidden patches as
decoded) where there is a decoder, and where the backbone has attention, `attention`, how much the
middle token attends to each voxel's patch in the last block, over the mean. Imports no torch, for
the report reads them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import atomic_write

FORMAT_VERSION = 1
FOLDER, IMAGES_PER_RUN = "snapshots", 4
STEP_PATTERN = f"step-{'[0-9]' * 8}"  # of files of a step, not of a copy that a user has renamed
FEATURE_PCA_FILE = "feature_pca.npz"  # beside the runs
ImageArrays = dict[str, NDArray[np.float32]]


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether a snapshot at `step`, taken every `every` steps, ends a quarter of the run."""
    return (
        step == steps
        or IMAGES_PER_RUN * step // steps > IMAGES_PER_RUN * max(0, step - every) // steps
    )


def save_images(folder: Path, step: int, arrays: ImageArrays) -> None:
    """Write the images of a snapshot to a run's folder."""
    path = folder / FOLDER / f"step-{step:08d}.npz"
    write_arrays(path, arrays)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, and the version of their format, as a compressed file, whole."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, format=FORMAT_VERSION, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> ImageArrays:
    """Arrays by name. Raises UserError if the file is damaged or of another format version."""
    try:
        with open(path, "rb") as file, np.load(file) as stored:
            found = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, BadZipFile):
        found = {}
    if found.pop("format", None) != FORMAT_VERSION:
        raise UserError(
            f"{path} is damaged, or of another format version: remove it, and its picture is left "
            "out of the report."
        )
    return found


def read_images(folder: Path) -> list[tuple[int, ImageArrays]]:
    """The snapshot images of a run's folder, by step."""
    paths = sorted((folder / FOLDER).glob("step-*.npz"))
    return [(int(path.stem.split("-")[1]), read_arrays(path)) for path in paths]
