"""The atom of an evaluation: one method, from one start, with so many labels, for one seed.

A cell's predictions are one file, written whole. It holds a key, the hash of everything that
determines them, so that a run that was killed goes on with the next cell, and one whose data or
dials have changed computes its cells again.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_pipeline.io.atomic import read_json, write_json

FORMAT_VERSION = 3
FAILED = "failed"  # in the file of a cell that has no predictions: why
# What a cell starts from: an encoder by its name, the same architecture with random weights, or one
# of the baselines, which have no encoder.
RANDOM, PIXELS, RESNET, EXTERNAL = "random", "pixels + PCA", "small ResNet", "external predictions"
BASELINES = {
    PIXELS: "pixels",
    RESNET: "resnet",
    EXTERNAL: "external",
}  # with their names in file names
NOT_PRETRAINED = (RANDOM, *BASELINES)
BASELINE_METHOD = (
    "baseline"  # the method of baselines where methods adapt encoders, and none is theirs
)


@dataclass(frozen=True)
class Cell:
    """Coordinates of a cell."""

    method: str
    initialization: str
    subjects: int  # labelled training subjects; 0 is all
    seed: int

    def path(self, out: Path) -> Path:
        """Its file below the folder of a task."""
        return out / "cells" / f"{self.name}.json"

    @property
    def name(self) -> str:
        """Its name in file names."""
        start = BASELINES.get(self.initialization, self.initialization)
        return f"{self.method}-{start}-{self.subjects}-{self.seed}"


@dataclass(frozen=True)
class CellShard:
    """A part of the cells: the `number`-th of so many of about one size, from 1 on."""

    number: int
    count: int

    def cell_range(self, n_cells: int) -> range:
        """Which of so many cells; neighbours stay together, for they share what they need."""
        return range(n_cells * (self.number - 1) // self.count, n_cells * self.number // self.count)


UNSHARDED = CellShard(1, 1)


def load_cell(cell: Cell, key: str, out: Path) -> dict[str, Any] | None:
    """What the cell's file holds, if it is whole, has this key, and the files it names are there.

    A cell that failed is none.
    """
    path = cell.path(out)
    if not path.exists():
        return None
    content: dict[str, Any] = read_json(path)
    whole = FAILED not in content and all((out / f).exists() for f in content.get("files", ()))
    return content if content.get("key") == key and whole else None


def save_cell(cell: Cell, key: str, encoder: str, content: dict[str, Any], out: Path) -> None:
    """Write the cell's file; `encoder` is the hash of the one that it was computed with."""
    write_json(cell.path(out), {"key": key, "encoder": encoder, **content})


def files_of_other_encoders(out: Path, encoder_hashes: Collection[str]) -> Iterator[Path]:
    """The files of cells that none of these encoders computed; pixels need none."""
    for path in sorted(out.glob("cells/*.json")):
        content = read_json(path)
        if content.get("encoder", "") not in ("", *encoder_hashes):
            yield from (path, *(out / name for name in content.get("files", ())))


def comparable_methods(method: str, initialization: str) -> tuple[str, ...]:
    """The methods of a start's row that stands beside those of `method`, the first that there is.

    Where methods adapt encoders, the baselines share one row.
    """
    return (method, BASELINE_METHOD) if initialization in BASELINES else (method,)
