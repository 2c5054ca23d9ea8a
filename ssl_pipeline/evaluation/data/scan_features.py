"""Features of whole scans that another encoder made: a Parquet file, a row a scan.

A scan is named by the column `scan`, its code in the study, or by `path`, from the folder of its
root or in full, as `ssl-pipeline embed` writes it; columns `root` and `series` tell scans apart
whose paths are equal. Its vector is a list in the column `features`, or one number in each of
`feature_0`, `feature_1` and so on. Rows with an `error`, or without a vector, have failed. No other
column is read, so that no label can be among the features.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.formatting import format_count

SCAN, PATH, ROOT, SERIES, ERROR, FEATURES = "scan", "path", "root", "series", "error", "features"
WORDS = (SCAN, PATH, ROOT, SERIES, ERROR)
NUMBERED = re.compile(r"feature_(\d+)")
NAMED_SCANS = 3  # in a sentence


@dataclass(frozen=True)
class ScanNames:
    """What a row may call a scan of the study by."""

    id: str  # its code
    root: str
    series: str
    paths: tuple[str, ...]  # as files name it: in full, and from the folder of its root


@dataclass(frozen=True)
class ScanFeatures:
    """Vectors (dim,) of scans by code, and the first row (from 1) that names no scan."""

    title: str  # of the file, in sentences
    vectors: Mapping[str, NDArray[np.float32]]
    unknown_rows: int
    first_unknown_row: int

    def check(self, scans: Sequence[str], use: str) -> None:
        """Raise UserError where some of these scans, of a `use` in words, have no vector."""
        missing = [scan for scan in scans if scan not in self.vectors]
        if not missing:
            return
        unknown = (
            f"; {format_count(self.unknown_rows, 'row')} of it name no scan of the study, the first"
            f" is row {self.first_unknown_row}"
        ) * bool(self.unknown_rows)
        raise UserError(
            f"{self.title} lacks {len(missing)} of {format_count(len(scans), 'scan')} of {use}, "
            f"such as {', '.join(missing[:NAMED_SCANS])}{unknown}: name each by its path from the "
            "root's folder, or by its code, whose path `ssl-pipeline locate` prints."
        )


def read_scan_features(title: str, path: Path, scans: Iterable[ScanNames]) -> ScanFeatures:
    """Read the features of scans of the study; `title` names the file in sentences.

    Raises UserError for a file that cannot be read or has other columns, for vectors of two
    lengths or with numbers that are not finite, and for a row that names two scans or one that
    another row names.
    """
    table = _read_table(title, path)
    columns = {
        name: ["" if word is None else str(word) for word in table.column(name).to_pylist()]
        for name in WORDS
        if name in table.column_names
    }
    vectors = _vectors(title, table)
    lookup, row_of, unknown = _Lookup(title, scans), dict[str, int](), list[int]()
    for index, vector in enumerate(vectors):
        row = {name: values[index] for name, values in columns.items()}
        if row.get(ERROR) or vector is None:
            continue
        scan = lookup.find(row, index + 1)
        if scan is None:
            unknown.append(index + 1)
        elif scan in row_of:
            raise UserError(
                f"{title} has two rows of scan {scan}, {row_of[scan]} and {index + 1}: keep one."
            )
        else:
            row_of[scan] = index + 1
    found = {scan: vectors[row - 1] for scan, row in row_of.items()}
    return ScanFeatures(title, _checked(title, found), len(unknown), min(unknown, default=0))


class _Lookup:
    """The scans of a study by what rows call them."""

    def __init__(self, title: str, scans: Iterable[ScanNames]) -> None:
        self.title = title
        self.by_code: dict[str, ScanNames] = {}
        self.by_path: dict[str, list[ScanNames]] = defaultdict(list)
        for scan in scans:
            self.by_code[scan.id] = scan
            for path in dict.fromkeys(scan.paths):
                self.by_path[path].append(scan)

    def find(self, row: Mapping[str, str], number: int) -> str | None:
        """The code of the scan that a row names; None where it is none of the study."""
        if row.get(SCAN):
            return row[SCAN] if row[SCAN] in self.by_code else None
        found = [
            scan
            for scan in self.by_path.get(row.get(PATH, ""), ())
            if row.get(ROOT, "") in ("", scan.root) and row.get(SERIES, "") in ("", scan.series)
        ]
        if len(found) > 1:
            raise UserError(
                f"{self.title} names {len(found)} scans by one path in row {number}: add a column "
                f"`{ROOT}` or `{SERIES}`, or name scans by code in a column `{SCAN}`."
            )
        return found[0].id if found else None


def _read_table(title: str, path: Path) -> pa.Table:
    if not path.is_file():
        raise UserError(f"{title} is {path}, where no file is: correct the path.")
    try:
        names = pq.read_schema(path).names
        own = [name for name in names if name in (*WORDS, FEATURES) or NUMBERED.fullmatch(name)]
        table = pq.read_table(path, columns=own)
    except (OSError, pa.ArrowException):
        raise UserError(f"{title} is {path}, which is no Parquet file: write it again.") from None
    if not {SCAN, PATH} & set(table.column_names):
        raise UserError(
            f"{title} has neither a column `{SCAN}` nor `{PATH}`: name the scan of each row."
        )
    return table


def _vectors(title: str, table: pa.Table) -> list[NDArray[np.float32] | None]:
    """The vector of each row; None where it has none."""
    matches = filter(None, map(NUMBERED.fullmatch, table.column_names))
    numbered = [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]
    try:
        if FEATURES in table.column_names:
            return _from_lists(table.column(FEATURES).combine_chunks())
        if numbered:
            rows = np.stack([_numbers(table.column(name)) for name in numbered], axis=1)
            return [None if np.isnan(row).all() else row for row in rows]
    except pa.ArrowException:
        raise UserError(f"{title} has features that are no numbers: write numbers.") from None
    raise UserError(
        f"{title} has neither a column `{FEATURES}` of lists nor columns feature_0, feature_1 and "
        "so on: write one of them."
    )


def _from_lists(column: Any) -> list[NDArray[np.float32] | None]:
    numbers = _numbers(pc.list_flatten(column))
    lengths = [length or 0 for length in pc.list_value_length(column).to_pylist()]
    ends = np.cumsum(lengths, dtype=int)
    return [
        numbers[end - length : end] if length else None
        for end, length in zip(ends, lengths, strict=True)
    ]


def _numbers(column: Any) -> NDArray[np.float32]:
    """Numbers of a column; NaN where there is none."""
    found: NDArray[np.float32] = pc.cast(column, pa.float32(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return found


def _checked(
    title: str, found: Mapping[str, NDArray[np.float32] | None]
) -> Mapping[str, NDArray[np.float32]]:
    """The vectors, which must be of one length and of finite numbers."""
    vectors = {scan: vector for scan, vector in found.items() if vector is not None}
    lengths = sorted({len(vector) for vector in vectors.values()})
    if len(lengths) > 1:
        odd = next(scan for scan, vector in vectors.items() if len(vector) != lengths[-1])
        raise UserError(
            f"{title} has vectors of {lengths[0]} and {lengths[-1]} numbers, such as that of scan "
            f"{odd}: all must be of one encoder."
        )
    bad = [scan for scan, vector in vectors.items() if not np.isfinite(vector).all()]
    if bad:
        raise UserError(
            f"{title} has numbers that are not finite, for {format_count(len(bad), 'scan')}, such "
            f"as {bad[0]}: leave such rows out, or compute them again."
        )
    return vectors
