"""Calibration of classifiers: reliability diagrams of accuracy against confidence.

A point is a tenth of all predictions of a row, over all its seeds, by confidence. Points below the
diagonal are overconfident.
"""

from collections.abc import Sequence

import numpy as np

from ssl_pipeline.evaluation.cells import FAILED, Cell
from ssl_pipeline.evaluation.metrics.classification import calibration_bins
from ssl_pipeline.formatting import format_score
from ssl_pipeline.io.atomic import read_json
from ssl_pipeline.report.data.results import TaskResult, initialization_title, method_title
from ssl_pipeline.report.render.figures import Picture, marker_styles, small_figure, svg_uri

Points = list[tuple[float, float, int]]


def calibration_panels(results: Sequence[TaskResult]) -> list[Picture]:
    """One panel a method, with most labels; none for voxels and numbers."""
    return [
        _calibration_panel(each, method)
        for each in results
        if each.content["metric"] == "balanced accuracy"
        for method in each.methods
        if _calibration_points(each, method, each.initializations[0])
    ]


def _calibration_points(result: TaskResult, method: str, init: str) -> Points:
    """Bins of the predictions of all seeds; none where a cell is missing."""
    most = result.label_budgets(method)[-1]
    row = result.row(method, init, most)
    if row is None:
        return []
    seeds = range(len(row["per_seed"]))
    paths = [Cell(row["method"], init, most, seed).path(result.folder) for seed in seeds]
    if not all(path.exists() for path in paths):
        return []
    contents = [read_json(path) for path in paths]
    if any(FAILED in content for content in contents):
        return []
    rows = [row for content in contents for row in content["predictions"]]
    probability = np.array([row["probability"] for row in rows])
    hit = probability.argmax(axis=1) == np.array([row["target"] for row in rows])
    return calibration_bins(hit, probability.max(axis=1))


def _calibration_panel(result: TaskResult, method: str) -> Picture:
    figure, axes = small_figure(3.1, 2.9)
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=0.9, linestyle=(0, (4, 3)))
    told = []
    for init, (colour, marker, _) in marker_styles(result.initializations).items():
        points = _calibration_points(result, method, init)
        if points:
            confidence, accuracy, _ = zip(*points, strict=True)
            axes.plot(
                confidence, accuracy, color=colour, marker=marker, markersize=4.5, linewidth=1.2
            )
            error = result.row(method, init, result.label_budgets(method)[-1])
            off = error["other_metrics"]["calibration error"]["mean"] if error else None
            told.append(f"{initialization_title(init)} {format_score(off)}")
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.03, 1.03)
    title = method_title(method)
    return Picture(svg_uri(figure), f"{title}: calibration error {', '.join(told)}.", title)
