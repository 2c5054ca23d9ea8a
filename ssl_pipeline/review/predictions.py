"""Predictions that readers are asked about: what `ssl-pipeline predict` left for scans of a study.

They are found by the content of scans and not by names, so the folder of scans that was predicted
may be any copy.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.text import read_text
from ssl_pipeline.volumes.inventory import Scan

PREDICTIONS_TABLE = "predictions.csv"
REVIEW_COLUMNS = ("scan_sha256", "entropy", "label_map", "label_map_sha256")
VOLUME_COLUMN = " (ml)"  # how the columns of volumes of classes end


@dataclass(frozen=True)
class ReviewedPrediction:
    """A label map that a model predicted for a scan."""

    scan: str  # its code
    file: Path
    sha256: str  # of the file
    entropy: float  # mean over the voxels, in nats
    is_empty: bool  # whether it has no class but background


def check_predictions(folder: Path) -> None:
    """Raise UserError where a folder has no table of predictions."""
    if not (folder / PREDICTIONS_TABLE).is_file():
        raise _no_output(folder)


def read_predictions(folder: Path, scans: Sequence[Scan]) -> list[ReviewedPrediction]:
    """The predictions for scans of a study, those of which the model is least certain first.

    Raises UserError as `segmented_rows` does, and for a folder of other scans alone.
    """
    table = folder / PREDICTIONS_TABLE
    codes = {(scan.sha256, scan.part): scan.id for scan in reversed(scans) if scan.sha256}
    rows = [
        (codes[key], row)
        for row in segmented_rows(folder)
        if (key := (row["scan_sha256"], row["series"].partition("#")[2])) in codes
    ]
    try:
        found = [_prediction(scan, row, folder) for scan, row in rows]
    except ValueError:
        raise _no_output(folder) from None
    if not found:
        raise UserError(
            f"review.predictions: {table} has no scan of this study: predict for the folder of its"
            " scans."
        )
    return sorted({each.scan: each for each in found}.values(), key=lambda each: -each.entropy)


def _prediction(scan: str, row: dict[str, str], folder: Path) -> ReviewedPrediction:
    """The prediction of a row. Raises ValueError where it has no numbers."""
    return ReviewedPrediction(
        scan,
        folder / row["label_map"],
        row["label_map_sha256"],
        float(row["entropy"]),
        not any(float(row[name] or 0) for name in row if name.endswith(VOLUME_COLUMN)),
    )


def segmented_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of the table for scans that have a label map, with REVIEW_COLUMNS and `series`.

    Raises UserError for a folder that is no output of predict, or is without label maps.
    """
    table = folder / PREDICTIONS_TABLE
    check_predictions(folder)
    rows = list(csv.DictReader(io.StringIO(read_text(table))))
    if not rows or not rows[0].keys() >= {"series", *REVIEW_COLUMNS}:
        raise _no_output(folder)
    segmented = [row for row in rows if row["label_map"]]
    if not segmented:
        raise UserError(
            f"review.predictions: {table} has no label map: give predictions of a model of"
            " segmentation."
        )
    return segmented


def _no_output(folder: Path) -> UserError:
    return UserError(
        f"review.predictions: {folder} is no folder that `ssl-pipeline predict` of this version"
        " wrote: correct `path`, or predict again."
    )
