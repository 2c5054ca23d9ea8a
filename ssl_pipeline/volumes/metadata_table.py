"""The metadata table of a study, CSV or Parquet: what is known of scans beside their files."""

import csv
import difflib
import io
import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.io.text import clean_text, normalize_word, read_text
from ssl_pipeline.volumes.config import KNOWN_COLUMNS, Modality, SplitName, resolve_path
from ssl_pipeline.volumes.walk import real_location

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
SHORTENED_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?E\+?[0-9]+", re.IGNORECASE)
COLUMN_CHOICES = {"modality": get_args(Modality), "split": get_args(SplitName)}


@dataclass(frozen=True)
class TableRow:
    """One row; `values` has every column as text, empty where the table has none.

    Rules may read any column; only `targets` are kept, those that the study declares, where filled.
    """

    number: int  # from 1, by which messages name it
    path: Path
    values: Mapping[str, str]
    targets: Mapping[str, str]

    def get(self, column: str) -> str:
        """A known column's text, empty where the table does not have it."""
        return self.values.get(column, "")

    @property
    def weight(self) -> float:
        """The scan's sampling weight, 1 where the table has none."""
        return parse_weight(self.get("sampling_weight"))


class RowLookup:
    """Finds the row of a file, by whatever links the table and the file are named."""

    def __init__(self, rows: Iterable[TableRow]) -> None:
        rows = list(rows)
        self._rows = {Path(os.path.realpath(row.path)): row for row in rows} | {
            real_location(row.path): row for row in rows
        }
        self._of_folder: dict[Path, TableRow | None] = {}

    def find(self, path: Path) -> TableRow | None:
        """The row of a file, or of the nearest folder above it that has one."""
        if not self._rows:
            return None
        places = (real_location(path), Path(os.path.realpath(path)))
        own = next((self._rows[place] for place in places if place in self._rows), None)
        if path.parent not in self._of_folder:
            self._of_folder[path.parent] = self._row_above(path.parent)
        return own or self._of_folder[path.parent]

    def _row_above(self, folder: Path) -> TableRow | None:
        above = [Path(os.path.realpath(place)) for place in (folder, *folder.parents)]
        places = (*above, *above[0].parents)
        return next((self._rows[place] for place in places if place in self._rows), None)


def read_table(path: Path, targets: Collection[str] = ()) -> list[TableRow]:
    """The rows of a table, with these columns as targets.

    Raises UserError, naming the row or column, for what cannot be used.
    """
    if not path.is_file():
        raise UserError(f"data.table: {path} is not there.")
    rows: dict[Path, TableRow] = {}
    columns, records = _records(path)
    _check_columns(path, columns, targets)
    for number, values in enumerate(records, start=1):
        row = _row(path, number, values, targets)
        first = rows.setdefault(real_location(row.path), row)
        if first is not row:
            raise UserError(
                f"{path}: rows {first.number} and {number} name one path; keep one row."
            )
    return list(rows.values())


def _records(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns' names and the rows' cells; all but paths as words are compared."""
    titles, rows = read_cells(path)
    columns = [clean_text(title) for title in titles]
    twice = next((name for name in columns if name and columns.count(name) > 1), "")
    if twice:
        raise UserError(f"{path} has two columns `{twice}`: give each a name of its own.")
    cells = (dict(zip(columns, row, strict=True)) for row in rows)
    return [name for name in columns if name], [
        {
            name: cell.strip() if name == "path" else normalize_word(cell)
            for name, cell in row.items()
            if name
        }
        for row in cells
    ]


def read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """The first line and the rows of a CSV or Parquet table, as they are written.

    Raises UserError where it cannot be read.
    """
    is_parquet = path.suffix.lower() in PARQUET_SUFFIXES
    return _parquet_cells(path) if is_parquet else _csv_cells(path)


def _parquet_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        raise UserError(f"{path} is torn or no Parquet table: write it again.") from None
    columns = ([_cell_text(value) for value in column.to_pylist()] for column in table.columns)
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]


def _cell_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list) and all(isinstance(number, int | float) for number in value):
        return " ".join(f"{number:.6g}" for number in value)  # a vector
    is_whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else f"{value:.0f}" if is_whole else str(value)


def _csv_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    text = read_text(path)
    title_line = text.partition("\n")[0]
    delimiter = max(",;\t|", key=title_line.count)  # the comma where none occurs
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    try:
        columns, *rows = [line for line in lines if any(map(str.strip, line))] or [[]]
    except csv.Error as error:
        raise UserError(
            f"{path}: line {lines.line_num} is no line of a CSV table ({error})."
        ) from None
    for number, row in enumerate(rows, start=1):
        if len(row) < len(columns) or any(row[len(columns) :]):
            raise UserError(
                f"{path}: row {number} has {len(row)} cells, and the first line names"
                f" {len(columns)} columns: put texts that hold `{delimiter}` into quotes."
            )
    return columns, [row[: len(columns)] for row in rows]


def _check_columns(path: Path, columns: list[str], targets: Collection[str]) -> None:
    """Refuse near misses of known columns, and targets that are no columns."""
    if "path" not in columns:
        raise UserError(
            f"{path} has no column `path` in its first line: name the columns there, and give every"
            " scan its path, from the table's folder."
        )
    for name in targets:
        if name not in columns:
            raise UserError(
                f"data.targets has {name}, and {path} has no such column: "
                f"{suggest_name(name, columns)}"
            )
    for column in columns:
        meant = difflib.get_close_matches(column.lower(), KNOWN_COLUMNS, n=1, cutoff=0.8)
        if meant and column not in KNOWN_COLUMNS and meant[0] not in columns:
            raise UserError(
                f"{path} has a column `{column}`: call it {meant[0]} if it is that, and something "
                "less like it if not."
            )


def _row(table: Path, number: int, values: dict[str, str], targets: Collection[str]) -> TableRow:
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
    path = _path_of(values["path"], folder)
    if SHORTENED_NUMBER.fullmatch(values.get("subject", "")):
        raise UserError(
            f"{where} has a subject that a spreadsheet has shortened, as 1.23E+12, so that several"
            " people may have it; write subjects as text."
        )
    if not path.exists():
        raise UserError(f"{where} names a path that is not in {folder}; correct it.")
    return TableRow(number, path, values, {name: values[name] for name in targets if values[name]})


def _path_of(text: str, folder: Path) -> Path:
    """The path that a cell names, in composed or decomposed characters as the file has them."""
    forms = (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))
    paths = [resolve_path(form, folder) for form in forms]
    return next((path for path in paths if path.exists()), paths[0])


def parse_weight(text: str) -> float:
    """A sampling weight: 1 where the text is empty, nan where it is no number."""
    try:
        return float(text or 1)
    except ValueError:
        return math.nan
