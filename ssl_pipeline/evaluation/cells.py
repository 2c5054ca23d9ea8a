"""Experiment cells: one method, initialization, number of labelled subjects and seed.

A cell's predictions are one file, written atomically. It holds a key, the hash of everything that
determines them: a run that was killed goes on with the next cell, and a run whose data or settings
have changed computes its cells again.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_pipeline.io.atomic import read_json, write_json

FORMAT_VERSION = 3
FAILED = "failed"  # key of the reason in the file of a cell without predictions
# Initializations: an encoder by its name, the same architecture with random weights, or one of the
# baselines, which have no encoder.
RANDOM, PIXELS, RESNET = "random", "pixels + PCA", "small ResNet"
EXTERNAL = "external predictions"
# With their names in file names.
BASELINES = {PIXELS: "pixels", RESNET: "resnet", EXTERNAL: "external"}
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


def load_cell(cell: Cell, key: str, out: Path) -> dict[str, Any] | None:
    """Content of a cell's file, if it has this key and the files that it names exist, else None.

    A cell that failed has no content.
    """
    path = cell.path(out)
    if not path.exists():
        return None
    content: dict[str, Any] = read_json(path)
    complete = FAILED not in content and all((out / f).exists() for f in content.get("files", ()))
    return content if content.get("key") == key and complete else None


def save_cell(cell: Cell, key: str, encoder: str, content: dict[str, Any], out: Path) -> None:
    """Write the cell's file; `encoder` is the hash of the encoder that it was computed with."""
    write_json(cell.path(out), {"key": key, "encoder": encoder, **content})


def files_of_other_encoders(out: Path, encoder_hashes: Collection[str]) -> Iterator[Path]:
    """Files of cells that were computed with another encoder than these; pixels need none."""
    for path in sorted(out.glob("cells/*.json")):
        content = read_json(path)
        if content.get("encoder", "") not in ("", *encoder_hashes):
            yield from (path, *(out / name for name in content.get("files", ())))


def comparable_methods(method: str, initialization: str) -> tuple[str, ...]:
    """Methods under which an initialization is compared with `method`, in order of preference.

    Where methods adapt encoders, the baselines share one row.
    """
    return (method, BASELINE_METHOD) if initialization in BASELINES else (method,)
