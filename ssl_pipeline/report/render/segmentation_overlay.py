"""Overlays of predicted segmentations and the label on one test scan of each root.

The scan shown is the one with the median Dice of its root, so that it is typical; the slice is the
one with the most labelled voxels.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_pipeline.evaluation.cells import read_cell
from ssl_pipeline.evaluation.data.label_maps import LabelFile, resampled_label
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.formatting import format_score
from ssl_pipeline.preprocess.labels import label_on_grid
from ssl_pipeline.preprocess.prepare import model_input
from ssl_pipeline.report.data.results import TaskResult, initialization_title
from ssl_pipeline.report.render.figures import LegendEntry, Picture
from ssl_pipeline.report.render.images import (
    Colour,
    display_window,
    encode_picture,
    orient_for_display,
    resize_image,
    to_grey,
)
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.types import Spacing
from ssl_pipeline.volumes.label_matching import IGNORE_LABEL
from ssl_pipeline.volumes.readers import Source, read_volume

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
OPACITY = 0.55
LONGEST_SIDE_PIXELS = 240  # pixels
Labels = NDArray[np.uint8] | NDArray[np.int16]


def segmentation_overlays(
    result: TaskResult, task: Task, reader: CropReader, label_file: LabelFile
) -> tuple[list[Picture], list[LegendEntry]]:
    """Label and predictions of a scan a root, and the legend; empty where none was kept."""
    name = task.overlay_label
    shown = [
        entry
        for entry in (_median_scans(result, reader.catalog.entries) if name else ())
        if name and entry.labels.get(name) and label_file(entry.id, name).is_file()
    ]
    marks = [
        LegendEntry("■", _class_colour(index), each) for index, each in enumerate(task.class_names)
    ]
    pictures = [
        replace(picture, title=f"{entry.root}: {picture.title}") if len(shown) > 1 else picture
        for entry in shown
        for picture in _scan_overlays(result, task, reader, entry, label_file)
    ]
    return pictures, marks if pictures else []


def _scan_overlays(
    result: TaskResult, task: Task, reader: CropReader, entry: Entry, label_file: LabelFile
) -> list[Picture]:
    """The label of a scan and its predictions, in the slice with the most labelled voxels."""
    label = resampled_label(label_file, entry, task.overlay_label or "")
    area = np.isin(label, task.class_values).sum(axis=(1, 2))
    height = int(area.argmax())
    plane = _read_plane(entry, reader, height)
    found = [_paint_labels(plane, label[height], task, entry, "label")]
    for init in result.initializations:
        row_of_scan = _prediction(result, init, entry.id)
        if row_of_scan:
            predicted = _resample_label(result.folder / row_of_scan["file"], entry)
            title = f"{initialization_title(init)}, Dice {format_score(_mean_dice(row_of_scan))}"
            found.append(_paint_labels(plane, predicted[height], task, entry, title))
    return found


def _predictions(result: TaskResult, init: str) -> list[dict[str, Any]]:
    """Predictions with most labels and the first seed, whose maps were kept."""
    method = result.methods[0]
    row = result.row(method, init, result.largest_budget(method))
    path = result.cell_path(row, 0) if row else None
    rows = read_cell(path).predictions if path and path.exists() else ()
    return [r for r in rows if r.get("file") and (result.folder / r["file"]).exists()]


def _prediction(result: TaskResult, init: str, scan: str) -> dict[str, Any] | None:
    return next((r for r in _predictions(result, init) if r["scan"] == scan), None)


def _median_scans(result: TaskResult, entries: Sequence[Entry]) -> list[Entry]:
    """Of each root the scan with the median Dice by the first initialization."""
    known, by_root = {entry.id: entry for entry in entries}, dict[str, list[Entry]]()
    for row in sorted(_predictions(result, result.initializations[0]), key=_mean_dice):
        if entry := known.get(row["scan"]):
            by_root.setdefault(entry.root, []).append(entry)
    return [own[len(own) // 2] for _, own in sorted(by_root.items())]


def _mean_dice(prediction: dict[str, Any]) -> float:
    known = [value for value in prediction["dice"] if value is not None]
    return float(np.mean(known)) if known else 0.0


def _resample_label(path: Path, entry: Entry) -> Labels:
    return label_on_grid(read_volume(Source(path)), entry.meta)


def _read_plane(entry: Entry, reader: CropReader, height: int) -> NDArray[np.float32]:
    _, y, x = entry.shape
    block = reader.read_crop(entry.id, (height, 0, 0), (1, y, x))
    plane: NDArray[np.float32] = model_input(block, entry.meta)[0]
    return plane


def _paint_labels(
    plane: NDArray[np.float32], labels: Labels, task: Task, entry: Entry, title: str
) -> Picture:
    image = paint_classes(plane, labels, task.class_values, entry.spacing_mm, LONGEST_SIDE_PIXELS)
    return encode_picture(image, f"{task.title}: {title}, scan {entry.id}", title, is_photo=False)


def paint_classes(
    plane: NDArray[np.float32],
    labels: Labels,
    class_values: Sequence[int],
    spacing_mm: Spacing,
    longest_side: int,
) -> Image.Image:
    """A plane (y, x) with the classes of its voxels in colours, `longest_side` pixels long.

    `spacing_mm` is that of the volume, (z, y, x).
    """
    colours: Colour = to_grey(plane, *display_window(plane))
    for index, value in enumerate(class_values):
        inside = (labels == value) & (labels != IGNORE_LABEL)
        tint = np.array([int(_class_colour(index)[at : at + 2], 16) / 255 for at in (1, 3, 5)])
        colours[inside] = (1 - OPACITY) * colours[inside] + OPACITY * tint
    _, y_mm, x_mm = spacing_mm
    scale = longest_side / max(plane.shape[0] * y_mm, plane.shape[1] * x_mm)
    return resize_image(orient_for_display(colours), (y_mm, x_mm), scale, smooth=False)


def _class_colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]
