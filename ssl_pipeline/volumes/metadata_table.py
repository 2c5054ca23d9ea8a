"""The metadata table of a study, CSV or Parquet: what is known of scans beside their files."""

import csv
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.config import Modality, SplitName, resolve_path

KNOWN_COLUMNS = ("path", "subject", "site", "modality", "split", "sampling_weight")
# Other columns are targets, and results contain their values.
IDENTIFYING_COLUMN = re.compile(
    r"name|birth|dob|mrn|address|phone|mail|comment|accession|patient_?id", re.IGNORECASE
)
COLUMN_CHOICES = {"modality": get_args(Modality), "split": get_args(SplitName)}


@dataclass(frozen=True)
class TableRow:
    """One row; `values` has every column as text, empty where the table has none."""

    number: int  # from 1, by which messages name it
    path: Path
    values: Mapping[str, str]

    def get(self, column: str) -> str:
        """A known column's text, empty where the table does not have it."""
        return self.values.get(column, "")

    @property
    def weight(self) -> float:
        """The scan's sampling weight, 1 where the table has none."""
        return parse_weight(self.get("sampling_weight"))

    @property
    def targets(self) -> dict[str, str]:
        """The columns that are not known ones, where they are filled."""
        return {
            name: text for name, text in self.values.items() if name not in KNOWN_COLUMNS and text
        }


def read_table(path: Path) -> list[TableRow]:
    """The rows of a table. Raises UserError, naming the row, for what cannot be used."""
    if not path.is_file():
        raise UserError(f"data.table: {path} is not there.")
    rows: dict[Path, TableRow] = {}
    records = _records(path)
    _check_columns(path, list(records[0]) if records else [])
    for number, values in enumerate(records, start=1):
        row = _row(path, number, values)
        if row.path in rows:
            first = rows[row.path].number
            raise UserError(f"{path}: rows {first} and {number} name one path; keep one row.")
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


def _check_columns(path: Path, columns: list[str]) -> None:
    """Refuse identifying columns, and near misses of known ones, which would become targets."""
    if columns and "path" not in columns:
        raise UserError(
            f"{path} has no column `path` in its first line: name the columns there, and give every"
            " scan its path, from the table's folder."
        )
    for column in columns:
        if IDENTIFYING_COLUMN.search(column):
            raise UserError(
                f"{path} has a column `{column}`, which may say who a subject is, and results "
                "would pass it on: leave it out, or call it otherwise if it does not."
            )
        meant = difflib.get_close_matches(column.lower().strip(), KNOWN_COLUMNS, n=1, cutoff=0.8)
        if meant and column not in KNOWN_COLUMNS and meant[0] not in columns:
            raise UserError(
                f"{path} has a column `{column}`: call it {meant[0]} if it is that, and something "
                "less like it if it is a target."
            )


def _row(table: Path, number: int, values: dict[str, str]) -> TableRow:
    where, folder = f"{table}: row {number}", table.parent
    if not values.get("path"):
        raise UserError(
            f"{where} has no `path`; give every scan its path, from the table's folder."
        )
    for column, choices in COLUMN_CHOICES.items():
        if values.get(column, "") not in ("", *choices):
            raise UserError(
                f"{where} has a {column} that is none of {', '.join(choices)}; choose one of them."
            )
    if not 0 <= parse_weight(values.get("sampling_weight", "")) < math.inf:
        raise UserError(f"{where} has a sampling_weight that is no number from 0 on; correct it.")
    path = resolve_path(values["path"], folder)
    if not path.exists():
        raise UserError(f"{where} names a path that is not in {folder}; correct it.")
    return TableRow(number, path, values)


def parse_weight(text: str) -> float:
    """A sampling weight: 1 where the text is empty, nan where it is no number."""
    try:
        return float(text or 1)
    except ValueError:
        return math.nan
