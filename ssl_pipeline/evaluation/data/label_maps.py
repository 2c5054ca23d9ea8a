"""Label maps: label files on the grid of the stored volumes, for training, and on the scans' own.

For training a label is resampled to its image's stored grid by nearest neighbour once and saved as
a plain array, which later runs, and the trials of an ablation, map into memory: a training step
then reads a crop of it without reading the label file again. A saved map is identified by the label
file's bytes, the stored grid, and this format. What is scored or measured needs the label as it was
drawn: that is read from its file.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.atomic import atomic_write, sha256_file, sha256_json
from ssl_pipeline.preprocess.labels import label_on_grid, label_on_source_grid
from ssl_pipeline.preprocess.prepare import VolumeMeta
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.volumes.label_matching import IGNORE_LABEL
from ssl_pipeline.volumes.readers import ReadError, Source, read_volume
from ssl_pipeline.volumes.volume import Volume

FORMAT_VERSION = 1
LabelMap = NDArray[np.uint8] | NDArray[np.int16]
PlaceLabel = Callable[[Volume, VolumeMeta], LabelMap]  # a label as read on another grid
LabelFile = Callable[[str, str], Path]  # the file of a scan's label, by the scan's id and its name

__all__ = ["IGNORE_LABEL", "LabelFile", "LabelMap", "LabelMaps", "resampled_label"]


class LabelMaps:
    """Label maps of scans, resampled when first loaded and saved in `folder`."""

    def __init__(self, folder: Path, label_file: LabelFile) -> None:
        self.folder, self.label_file = folder, label_file
        self._hashes: dict[Path, str] = {}

    def sha256(self, entry: Entry, name: str) -> str:
        """Hash of the label file's bytes."""
        path = self.label_file(entry.id, name)
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]

    def load(self, entry: Entry, name: str) -> LabelMap:
        """The labels (z, y, x) of a scan on its stored grid; 255 is outside the label file."""
        key = sha256_json(
            [FORMAT_VERSION, self.sha256(entry, name), entry.meta.to_json(), list(entry.shape)]
        )
        path = self.folder / f"{entry.id}-{key[:16]}.npy"
        if not path.exists():
            label_map = resampled_label(self.label_file, entry, name)
            with atomic_write(path) as temporary, open(temporary, "wb") as file:
                np.save(file, label_map)
        mapped: LabelMap = np.load(path, mmap_mode="r")
        return mapped

    def load_on_source_grid(self, entry: Entry, name: str) -> LabelMap:
        """The labels (x, y, z) of a scan on its own grid, from the label file."""
        return _read_label(self.label_file, entry, name, label_on_source_grid)


def resampled_label(label_file: LabelFile, entry: Entry, name: str) -> LabelMap:
    """A scan's label on its stored grid, from its file. Raises UserError if it cannot be used."""
    return _read_label(label_file, entry, name, label_on_grid)


def _read_label(label_file: LabelFile, entry: Entry, name: str, place: PlaceLabel) -> LabelMap:
    try:
        return place(read_volume(Source(label_file(entry.id, name))), entry.meta)
    except ReadError as error:
        raise UserError(f"The label {name} of scan {entry.id} {error.reason}") from None
    except UserError as error:
        raise UserError(f"The label {name} of scan {entry.id}: {error}") from None
