"""Calibration of classifiers: reliability diagrams of accuracy against confidence.

A point is a tenth of all predictions of a row, over all its seeds, by confidence; of a task's
model, of those of the scored subjects, as they were learned and with its temperature. Points below
the diagonal are overconfident.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_pipeline.evaluation.metrics.classification import calibration_bins
from ssl_pipeline.evaluation.metrics.metric import CALIBRATION_ERROR
from ssl_pipeline.export.task_model.calibration_note import calibration_note
from ssl_pipeline.export.task_model.manifest import (
    MODEL_MANIFEST,
    ModelManifest,
    read_model_manifest,
)
from ssl_pipeline.formatting import format_score
from ssl_pipeline.report.data.results import TaskResult, initialization_title, method_title
from ssl_pipeline.report.render.figures import (
    LINE_COLOURS,
    TEXT_COLOUR,
    Picture,
    marker_styles,
    small_figure,
    svg_uri,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float, int]]


def calibration_panels(results: Sequence[TaskResult]) -> list[Picture]:
    """One panel a method, with most labels; none for voxels and numbers."""
    return [
        _calibration_panel(each, method)
        for each in results
        for method in each.methods
        if _calibration_points(each, method, each.initializations[0])
    ]


def model_calibration(folder: Path) -> tuple[str, list[Picture]]:
    """A sentence and a panel on how sure the task's model is; empty where it has no classes.

    No panel where it has no temperature. Raises UserError for a model that is damaged.
    """
    if not (folder / MODEL_MANIFEST).exists():
        return "", []
    manifest = read_model_manifest(folder)
    return calibration_note(manifest), _model_panels(manifest)


def _model_panels(manifest: ModelManifest) -> list[Picture]:
    found = manifest.calibration
    if found is None or not found.scored_bins_before:
        return []
    lines = {
        "as learned": (found.scored_bins_before, found.scored_error_before),
        "with its temperature": (found.scored_bins_after, found.scored_error_after),
    }
    figure, axes = _reliability_figure()
    styles = zip(LINE_COLOURS, "os", strict=False)
    for (name, (points, _)), (colour, marker) in zip(lines.items(), styles, strict=True):
        _plot_points(axes, points, colour, marker, name)
    axes.legend(fontsize=8, frameon=False, labelcolor=TEXT_COLOUR)
    title = f"the task's model, by {manifest.task.CLASSIFIED}"
    errors = ", ".join(f"{name} {format_score(error)}" for name, (_, error) in lines.items())
    return [Picture(svg_uri(figure), f"{title}: calibration error {errors}.", title)]


def _calibration_points(result: TaskResult, method: str, init: str) -> Points:
    """Bins of the predictions of all seeds; none where they have no probabilities."""
    row = result.row(method, init, result.largest_budget(method))
    if row is None or CALIBRATION_ERROR not in row.other_metrics:
        return []
    predictions = result.predictions(row)
    if not predictions:
        return []
    probability = np.array([prediction["probability"] for prediction in predictions])
    targets = np.array([prediction["target"] for prediction in predictions])
    return calibration_bins(probability.argmax(axis=1) == targets, probability.max(axis=1))


def _calibration_panel(result: TaskResult, method: str) -> Picture:
    figure, axes = _reliability_figure()
    errors = []
    for init, (colour, marker, _) in marker_styles(result.initializations).items():
        points = _calibration_points(result, method, init)
        if points:
            _plot_points(axes, points, colour, marker)
            row = result.row(method, init, result.largest_budget(method))
            error = row.other_metrics[CALIBRATION_ERROR].mean if row else None
            errors.append(f"{initialization_title(init)} {format_score(error)}")
    title = method_title(method)
    return Picture(svg_uri(figure), f"{title}: calibration error {', '.join(errors)}.", title)


def _reliability_figure() -> tuple["Figure", "Axes"]:
    """An empty panel with the diagonal, where confidence is accuracy."""
    figure, axes = small_figure(3.1, 2.9)
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.03, 1.03)
    return figure, axes


def _plot_points(axes: "Axes", points: Points, colour: str, marker: str, label: str = "") -> None:
    confidence, accuracy, _ = zip(*points, strict=True)
    axes.plot(
        confidence,
        accuracy,
        color=colour,
        marker=marker,
        markersize=4.5,
        linewidth=1.2,
        label=label,
    )
