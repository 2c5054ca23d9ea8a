"""A table of scans, CSV or Parquet: what a person knows of them that their files do not say."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.dataset import Modality, SplitName, resolve

KNOWN = ("path", "subject", "site", "modality", "split")
CHOICES = {"modality": get_args(Modality), "split": get_args(SplitName)}


@dataclass(frozen=True)
class Row:
    """One row; `values` has every column as text, empty where the table has none."""

    path: Path
    values: Mapping[str, str]

    def get(self, column: str) -> str:
        """A known column's text, empty where the table does not have it."""
        return self.values.get(column, "")

    @property
    def targets(self) -> dict[str, str]:
        """The columns that are not known ones, where they are filled."""
        return {name: text for name, text in self.values.items() if name not in KNOWN and text}


def read_table(path: Path) -> list[Row]:
    """The rows of a table. Raises UserError, naming the row, for what cannot be used."""
    if not path.is_file():
        raise UserError(f"data.table: {path} is not there.")
    rows: dict[Path, Row] = {}
    for number, values in enumerate(_records(path), start=1):
        row = _row(f"{path}: row {number}", values, path.parent)
        if row.path in rows:
            raise UserError(f"{path}: row {number} names {row.path} a second time; keep one row.")
        rows[row.path] = row
    return list(rows.values())


def _records(path: Path) -> list[dict[str, str]]:
    if path.suffix.lower() == ".parquet":
        records = pq.read_table(path).to_pylist()
        return [{k: "" if v is None else str(v) for k, v in each.items()} for each in records]
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [
            {k: (v or "").strip() for k, v in each.items() if k} for each in csv.DictReader(file)
        ]


def _row(where: str, values: dict[str, str], folder: Path) -> Row:
    if not values.get("path"):
        raise UserError(
            f"{where} has no `path`; give every scan its path, from the table's folder."
        )
    for column, choices in CHOICES.items():
        if values.get(column, "") not in ("", *choices):
            raise UserError(
                f"{where} has {column} `{values[column]}`; choose from {', '.join(choices)}."
            )
    path = resolve(values["path"], folder)
    if not path.exists():
        raise UserError(
            f"{where} names {values['path']}, which is not in {folder}; correct the path."
        )
    return Row(path, values)
