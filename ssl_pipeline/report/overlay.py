"""A segmentation beside its label: what a Dice looks like.

The scan shown is the one whose Dice is the median of the scored ones, so that it flatters nobody;
the slice is the one with most labelled voxels.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.atomic import read_json
from ssl_pipeline.evaluation.cells import Cell, beside
from ssl_pipeline.evaluation.labels import LabelFile, drawn_on_grid
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.preprocess.labels import OUTSIDE, label_on_grid
from ssl_pipeline.preprocess.prepare import model_input
from ssl_pipeline.report.figures import Mark, Picture
from ssl_pipeline.report.images import Colour, grey, picture, sized, upright, window
from ssl_pipeline.report.judgements import Judgement, start_name
from ssl_pipeline.report.numerals import score
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.volumes.readers import Source, read

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
OPACITY = 0.55
LONGEST = 240  # pixels
Labels = NDArray[np.uint8] | NDArray[np.int16]


def overlays(
    judgement: Judgement, task: Segmentation, reader: CropReader, label_file: LabelFile
) -> tuple[list[Picture], list[Mark]]:
    """Label and predictions of one scan, and the legend; empty where no prediction was kept."""
    scan = _median_scan(judgement)
    entry = next((e for e in reader.catalog.entries if e.id == scan), None)
    if entry is None or not entry.labels.get(task.label):
        return [], []
    if not label_file(entry.id, task.label).is_file():
        return [], []
    label = drawn_on_grid(label_file, entry, task.label)
    area = np.isin(label, task.values).sum(axis=(1, 2))
    height = int(area.argmax())
    plane = _grey_plane(entry, reader, height)
    found = [_painted(plane, label[height], task, entry, "label")]
    for init in judgement.starts:
        row_of_scan = _prediction(judgement, init, scan)
        if row_of_scan:
            predicted = _on_grid(judgement.folder / row_of_scan["file"], entry)
            title = f"{start_name(init)}, Dice {score(_mean_dice(row_of_scan))}"
            found.append(_painted(plane, predicted[height], task, entry, title))
    marks = [Mark("■", _colour(index), name) for index, name in enumerate(task.names)]
    return found, marks


def _cell(judgement: Judgement, init: str) -> Path:
    method = judgement.methods[0]
    most = judgement.budgets(method)[-1]
    return Cell(beside(method, init)[-1], init, most, 0).path(judgement.folder)


def _predictions(judgement: Judgement, init: str) -> list[dict[str, Any]]:
    """Rows of a cell's file, with most labels and the first seed, whose maps were kept."""
    path = _cell(judgement, init)
    rows = read_json(path).get("predictions", []) if path.exists() else []  # it may have failed
    return [r for r in rows if r.get("file") and (judgement.folder / r["file"]).exists()]


def _prediction(judgement: Judgement, init: str, scan: str) -> dict[str, Any] | None:
    return next((r for r in _predictions(judgement, init) if r["scan"] == scan), None)


def _median_scan(judgement: Judgement) -> str:
    rows = sorted(_predictions(judgement, judgement.starts[0]), key=_mean_dice)
    return str(rows[len(rows) // 2]["scan"]) if rows else ""


def _mean_dice(row_of_scan: dict[str, Any]) -> float:
    known = [value for value in row_of_scan["dice"] if value is not None]
    return float(np.mean(known)) if known else 0.0


def _on_grid(path: Path, entry: Entry) -> Labels:
    return label_on_grid(read(Source(path)), entry.meta)


def _grey_plane(entry: Entry, reader: CropReader, height: int) -> NDArray[np.float32]:
    _, y, x = entry.shape
    block = reader.block(entry.id, (height, 0, 0), (1, y, x))
    plane: NDArray[np.float32] = model_input(block, entry.meta)[0]
    return plane


def _painted(
    plane: NDArray[np.float32], labels: Labels, task: Segmentation, entry: Entry, title: str
) -> Picture:
    colours: Colour = grey(plane, *window(plane))
    for index, value in enumerate(task.values):
        inside = (labels == value) & (labels != OUTSIDE)
        tint = np.array([int(_colour(index)[at : at + 2], 16) / 255 for at in (1, 3, 5)])
        colours[inside] = (1 - OPACITY) * colours[inside] + OPACITY * tint
    x_mm, y_mm, _ = entry.spacing_mm
    scale = LONGEST / max(plane.shape[0] * y_mm, plane.shape[1] * x_mm)
    image = sized(upright(colours), (y_mm, x_mm), scale, smooth=False)
    return picture(image, f"{task.title}: {title}, scan {entry.id}", title, photo=False)


def _colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]
