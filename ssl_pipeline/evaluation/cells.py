"""Experiment cells: one method, initialization, number of labelled subjects and seed.

A cell's predictions are one file, written atomically. It holds a key, the hash of everything that
determines them: a run that was killed goes on with the next cell, and a run whose data or settings
have changed computes its cells again.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ssl_pipeline.io.records import (
    Record,
    read_record,
    read_record_if_whole,
    write_record,
)

FORMAT_VERSION: Literal[4] = 4
# Initializations: an encoder by its name, the same architecture with random weights, or one of the
# baselines, which have no encoder.
RANDOM, PIXELS, RESNET = "random", "pixels + PCA", "small ResNet"
EXTERNAL = "external predictions"
BODY_BOX, GREY_VALUES = "place in the body", "grey values"
# With their names in file names.
BASELINES = {
    PIXELS: "pixels",
    RESNET: "resnet",
    EXTERNAL: "external",
    BODY_BOX: "box",
    GREY_VALUES: "grey",
}
NOT_PRETRAINED = (RANDOM, *BASELINES)
# The method of baselines where methods adapt encoders, for none of those is theirs.
BASELINE_METHOD = "baseline"


@dataclass(frozen=True)
class Cell:
    """Coordinates of a cell."""

    method: str
    initialization: str
    subjects: int  # labelled training subjects; 0 is all
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        """Of its row in the table: method, initialization and labelled subjects."""
        return self.method, self.initialization, self.subjects

    def path(self, out: Path) -> Path:
        """Its file below the folder of a task."""
        return out / "cells" / f"{self.name}.json"

    @property
    def name(self) -> str:
        """Its name in file names."""
        initialization = BASELINES.get(self.initialization, self.initialization)
        return f"{self.method}-{initialization}-{self.subjects}-{self.seed}"


@dataclass(frozen=True)
class CellShard:
    """One of `count` parts of the cells, of about equal size; `number` counts from 1."""

    number: int
    count: int

    def cell_range(self, n_cells: int) -> range:
        """Indices of the shard's cells; neighbours stay together, for they share features."""
        return range(n_cells * (self.number - 1) // self.count, n_cells * self.number // self.count)


UNSHARDED = CellShard(1, 1)


class CellRecord(Record):
    """A cell's file: its predictions and their cost, or the reason of its failure."""

    format: Literal[4] = FORMAT_VERSION
    key: str
    encoder: str  # hash of the encoder that it was computed with; empty for baselines
    predictions: tuple[dict[str, Any], ...] = ()
    files: tuple[str, ...] = ()  # below the folder of the task
    costs: dict[str, int | float] = Field(default_factory=dict)
    largest_components: tuple[int, ...] = ()  # classes for which the cell chose to keep them alone
    failed: str = ""


def load_cell(cell: Cell, key: str, out: Path) -> CellRecord | None:
    """A cell's record, if it has this key and the files that it names exist, else None.

    A cell that failed, or whose file is damaged, is to be computed again.
    """
    found = read_record_if_whole(CellRecord, cell.path(out))
    if found is None:
        return None
    is_complete = not found.failed and all((out / file).exists() for file in found.files)
    return found if found.key == key and is_complete else None


def save_cell(cell: Cell, record: CellRecord, out: Path) -> None:
    """Write a cell's record."""
    write_record(cell.path(out), record)


def read_cell(path: Path) -> CellRecord:
    """The record in a cell's file."""
    return read_record(CellRecord, path, "delete it, and the cell is computed again")


def files_of_other_encoders(out: Path, encoder_hashes: Collection[str]) -> Iterator[Path]:
    """Files of cells that were computed with another encoder than these; pixels need none."""
    for path in sorted(out.glob("cells/*.json")):
        record = read_record_if_whole(CellRecord, path)
        if record and record.encoder not in ("", *encoder_hashes):
            yield from (path, *(out / name for name in record.files))


def comparable_methods(method: str, initialization: str) -> tuple[str, ...]:
    """Methods under which an initialization is compared with `method`, in order of preference.

    Where methods adapt encoders, the baselines share one row.
    """
    return (method, BASELINE_METHOD) if initialization in BASELINES else (method,)
