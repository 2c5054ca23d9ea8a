"""Matching of label volumes to images, and checks that a label fits its image and holds classes."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import compose
from ssl_pipeline.volumes import geometry, readers
from ssl_pipeline.volumes.config import LabelSource, resolve_path
from ssl_pipeline.volumes.readers import ReadError, Source
from ssl_pipeline.volumes.volume import VoxelGrid
from ssl_pipeline.volumes.walk import RawFiles

LabelVerdict = Literal["fits", "empty", "off_grid"]  # "off_grid": not on the image's own grid
IGNORE_LABEL = 255  # "not annotated": a voxel that the label file does not reach
# What a reader finished where there was no label is given too; a prediction was accepted by one.
LabelKind = Literal["given", "corrected", "prediction"]


class LabelProvenance(NamedTuple):
    """The kind of a label, and the short code of the reader who made or accepted it, if known."""

    kind: LabelKind = "given"
    reader: str = ""


@dataclass(frozen=True)
class LabelFolder:
    """The label volumes of one source, by their path below its folder without suffix.

    `unused_files` are those of its folder that are part of no volume of a known format.
    """

    source: LabelSource
    files: dict[str, Path]
    unused_files: list[Path]

    def label_path(self, relative_path: str) -> Path | None:
        """The label of the image at `relative_path`, its path below its own root."""
        path = PurePosixPath(readers.strip_suffix(relative_path))
        words = {"stem": path.name, "folder": str(path.parent) if path.parent.name else ""}
        if self.source.image_pattern:
            match = re.search(self.source.image_pattern, compose(relative_path))
            if not match:
                return None
            words |= {name: text or "" for name, text in match.groupdict().items()}
        name = readers.strip_suffix(self.source.pattern).format(**words).lstrip("/")
        return self.files.get(compose(name))


def find_labels(source: LabelSource, raw_files: RawFiles) -> LabelFolder:
    """Find the label volumes of one source. Raises UserError where their folder is absent."""
    folder = resolve_path(source.path)
    if not folder.is_dir():
        raise UserError(f"data.roots.labels: there is no folder {folder}; correct the path.")
    shape = _as_regex(compose(readers.strip_suffix(source.pattern)))
    files: dict[str, Path] = {}
    folders = raw_files.below(folder)
    sources = readers.sources_among(folders)
    for each in sources:
        key = compose(readers.strip_suffix(each.path.relative_to(folder).as_posix()))
        if shape.fullmatch(key):
            files.setdefault(key, each.path)
    return LabelFolder(source, files, readers.unused_files(folders, sources))


def _as_regex(pattern: str) -> re.Pattern[str]:
    """A regular expression that the path of any label matches, whatever its image's name."""
    parts = {"{stem}": "[^/]+", "{folder}/": "(?:.+/)?"}
    pieces = re.split(r"({folder}/|{\w+})", pattern)
    return re.compile(
        "".join(
            parts.get(piece, ".+") if piece.startswith("{") else re.escape(piece)
            for piece in pieces
        )
    )


@dataclass(frozen=True)
class LabelCheck:
    """Why a label does not fit its image, empty where it does, and the classes that it holds.

    `classes` are its values but 0 and IGNORE_LABEL, rising; None where it holds none to evaluate.
    One that `can_be_used` is at fault for its grid alone, if at all.
    """

    fault: str = ""
    classes: list[int] | None = None
    can_be_used: bool = False

    @property
    def verdict(self) -> LabelVerdict:
        """What a label that can be used is, in a word."""
        if self.fault:
            return "off_grid"
        return "empty" if self.classes == [] else "fits"


def check_label(
    name: str, label_path: Path, image_grid: VoxelGrid, *, is_mask: bool = False
) -> LabelCheck:
    """Check whether a label fits an image of grid `image_grid`, and which classes it holds.

    It is read whole: what is no class would else be found only after pretraining. Of a label that
    serves as a mask (`is_mask`) the voxels above 0 count, whatever their values.
    """
    try:
        label = readers.read_volume(Source(label_path))
        classes = _classes_present(label.data, is_mask=is_mask)
        return LabelCheck(_grid_mismatch(name, label.grid, image_grid), classes, can_be_used=True)
    except ReadError as error:
        return LabelCheck(f"label {name} was dropped: {error.reason}")
    except UserError as error:
        return LabelCheck(f"label {name} was dropped: {error}")


def _classes_present(data: NDArray[Any], *, is_mask: bool) -> list[int] | None:
    try:
        values = class_values(data)
        if values.min() == values.max() > 0:
            raise UserError(f"A label is {values.max()} everywhere: give a file with a background.")
    except UserError:
        if is_mask:
            return None
        raise
    is_present = np.zeros(np.iinfo(np.int16).max + 1, np.bool_)
    is_present[values] = True
    is_present[[0, IGNORE_LABEL]] = False
    found: list[int] = np.flatnonzero(is_present).tolist()
    return found


def _grid_mismatch(name: str, found: VoxelGrid, image_grid: VoxelGrid) -> str:
    wanted = geometry.canonical_grid(image_grid).shape
    given = geometry.canonical_grid(found).shape
    if given != wanted:
        return (
            f"label {name} has another shape, {_shape_text(given)} for an image of"
            f" {_shape_text(wanted)}"
        )
    if not geometry.is_same_grid(found, image_grid):
        return f"label {name} lies in another place than the image"
    return ""


def class_values(data: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.int16]:
    """A label's values in the smallest type that holds them and IGNORE_LABEL. Shape of `data`.

    Raises UserError for values that are no classes.
    """
    low, high = data.min(), data.max()
    if np.isnan(low):
        raise UserError("A label holds NaN: give a file whose values are whole numbers.")
    if not (low >= 0 and high <= np.iinfo(np.int16).max):
        raise UserError(
            f"A label holds values from {low:g} to {high:g}: "
            "give a file whose classes are whole numbers from 0 to 32767."
        )
    classes: NDArray[Any] = data.astype(np.uint8 if high <= IGNORE_LABEL else np.int16)
    if np.issubdtype(data.dtype, np.floating) and np.any(classes != data):
        raise UserError("A label holds fractions: give a file whose values are whole numbers.")
    if high == IGNORE_LABEL and not np.any((classes > 0) & (classes < IGNORE_LABEL)):
        raise UserError(
            f"A label's only class is {IGNORE_LABEL}, which means 'not annotated': renumber it."
        )
    return classes


def _shape_text(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(side) for side in shape)
