"""Landmarks that one click has found in other subjects: pictures and distances."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_pipeline.evaluation.cells import read_cell
from ssl_pipeline.evaluation.metrics.correspondence import HERE, landmark_table
from ssl_pipeline.evaluation.metrics.scores import mean_class_ratio
from ssl_pipeline.evaluation.records import ScoreRow
from ssl_pipeline.evaluation.statistics.estimates import Estimate, MetricEstimate
from ssl_pipeline.evaluation.tasks.task import Task
from ssl_pipeline.formatting import NO_VALUE, format_score
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.report.data.results import TaskResult, initialization_title
from ssl_pipeline.report.render.figures import LegendEntry, Picture
from ssl_pipeline.report.render.images import encode_picture
from ssl_pipeline.report.render.place_picture import (
    DOUBTED_COLOUR,
    FOUND_COLOUR,
    TRUE_COLOUR,
    Rgb,
    place_picture,
)
from ssl_pipeline.report.render.table import Table
from ssl_pipeline.store.reader import CropReader

LANDMARKS, SUBJECTS = 3, 8  # that are drawn
LONGEST_SIDE_PIXELS = 200
CORONAL = (1,)
Row = Mapping[str, Any]  # of a landmark of a scan, in a cell's file


@dataclass(frozen=True)
class PlacesSection:
    """Places that were found, beside the truth."""

    pictures: Sequence[Picture]
    legend: Sequence[LegendEntry]
    distances: Table


def places_section(
    results: Sequence[TaskResult], task: Task, reader: CropReader | None
) -> PlacesSection | None:
    """The section of a task that has landmarks; None of others."""
    if not task.HAS_LANDMARKS:
        return None
    (result,) = results
    pictures = list(_pictures(result, task, reader)) if reader else []
    marks = (
        (FOUND_COLOUR, "found"),
        (DOUBTED_COLOUR, "most similar, but said not to be here"),
        (TRUE_COLOUR, "the label's centre, in its projection"),
    )
    legend = [LegendEntry("○", _hex(colour), text) for colour, text in marks]
    return PlacesSection(pictures, legend if pictures else [], _distance_table(result))


def _pictures(result: TaskResult, task: Task, reader: CropReader) -> Iterator[Picture]:
    """The first landmarks in some subjects, by one click and the first encoder."""
    first = next(iter(result.results.rows), None)  # of the first encoder, by the fewest clicks
    rows = _cell_rows(result, first, 0) if first else []
    for landmark, name in enumerate(task.class_names[:LANDMARKS]):
        for row in _spread(rows, landmark):
            yield _picture(row, name, reader)


def _spread(rows: Sequence[Row], landmark: int) -> list[Row]:
    """A row for each of `SUBJECTS` scans, from the best to the worst at equal steps."""
    own = sorted(
        (row for row in rows if row["landmark"] == landmark), key=lambda row: row["distance_mm"]
    )
    steps = np.linspace(0, len(own) - 1, min(SUBJECTS, len(own))).round().astype(int)
    return [own[step] for step in steps]


def _picture(row: Row, name: str, reader: CropReader) -> Picture:
    """The coronal plane of a scan through a place, with the truth."""
    entry = reader.catalog.by_id(row["scan"])
    scan = PreparedVolume(reader.read_volume(entry.id), entry.meta)
    is_doubted = row["confidence"] is not None and row["confidence"] < HERE
    place, truth = (np.array(row[key], np.float64) for key in ("place", "truth"))
    marks = [(place, DOUBTED_COLOUR if is_doubted else FOUND_COLOUR), (truth, TRUE_COLOUR)]
    image = place_picture(scan, marks, LONGEST_SIDE_PIXELS, CORONAL)
    title = f"{name}: {row['distance_mm']:.0f} mm" + ", not here" * is_doubted
    return encode_picture(image, f"{title}, scan {entry.id}", title)


def _distance_table(result: TaskResult) -> Table:
    """Distance by landmark of every initialization and number of clicks."""
    results = result.results
    rows = [
        (
            initialization_title(row.initialization),
            result.budget_text(row.subjects),
            *_distances(result, row),
        )
        for row in results.rows
    ]
    caption = (
        "Distance from the label's centre in mm by landmark: mean over subjects and seeds with "
        f"{100 * results.confidence:g} % confidence interval, and the median"
    )
    head = ("initialization", "labelled subjects", *results.classes)
    return Table(caption, head, rows, text_columns=2)


def _distances(result: TaskResult, row: ScoreRow) -> Iterator[str]:
    """The distance of each landmark in words."""
    seeds = [_cell_rows(result, row, seed) for seed in range(len(row.per_seed))]
    subjects = sorted({each["subject"] for rows in seeds for each in rows})
    count, confidence = len(result.results.classes), result.results.confidence
    tables = [
        landmark_table(subjects, count, rows, lambda each: float(each["distance_mm"]))
        for rows in seeds
    ]
    for landmark in range(count):
        values = [
            mean_class_ratio(total[:, landmark, None], number[:, landmark, None])
            for total, number in tables
        ]
        apart = [
            each["distance_mm"] for rows in seeds for each in rows if each["landmark"] == landmark
        ]
        if apart and all(np.isfinite(value.value) for value in values):
            estimate = MetricEstimate.from_seeds(values).with_interval(confidence)
            yield f"{_in_words(estimate)}, median {format_score(float(np.median(apart)), 0)}"
        else:
            yield NO_VALUE


def _in_words(estimate: Estimate) -> str:
    """A mean distance with its interval, in whole mm."""
    ends = [format_score(each, 0) for each in (estimate.mean, estimate.low, estimate.high)]
    return ends[0] if estimate.interval is None else f"{ends[0]} [{ends[1]}, {ends[2]}]"


def _cell_rows(result: TaskResult, row: ScoreRow, seed: int) -> Sequence[Row]:
    """Rows of the cell of a row and seed; none where its file is missing."""
    path = result.cell_path(row, seed)
    return read_cell(path).predictions if path.exists() else ()


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
