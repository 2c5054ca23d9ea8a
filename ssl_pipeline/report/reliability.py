"""Whether a classifier is as often right as it is sure, drawn: accuracy against confidence.

A point is a tenth of all predictions of a row, of all its seeds, by confidence. Points below the
diagonal promised too much.
"""

from collections.abc import Sequence

import numpy as np

from ssl_pipeline.atomic import read_json
from ssl_pipeline.evaluation.cells import FAILED, Cell
from ssl_pipeline.evaluation.metrics import calibration
from ssl_pipeline.report.figures import Picture, looks, small, svg
from ssl_pipeline.report.judgements import Judgement, method_name, start_name
from ssl_pipeline.report.numerals import score

Points = list[tuple[float, float, int]]


def reliability(judgements: Sequence[Judgement]) -> list[Picture]:
    """One panel a method, with most labels; none for voxels and numbers."""
    return [
        _panel(each, method)
        for each in judgements
        if each.results["metric"] == "balanced accuracy"
        for method in each.methods
        if _points(each, method, each.starts[0])
    ]


def _points(judgement: Judgement, method: str, init: str) -> Points:
    """Groups of the predictions of all seeds; none where a cell is not there."""
    most = judgement.budgets(method)[-1]
    row = judgement.row(method, init, most)
    if row is None:
        return []
    seeds = range(len(row["per_seed"]))
    paths = [Cell(row["method"], init, most, seed).path(judgement.folder) for seed in seeds]
    if not all(path.exists() for path in paths):
        return []
    contents = [read_json(path) for path in paths]
    if any(FAILED in content for content in contents):
        return []
    rows = [row for content in contents for row in content["predictions"]]
    probability = np.array([row["probability"] for row in rows])
    hit = probability.argmax(axis=1) == np.array([row["target"] for row in rows])
    return calibration(hit, probability.max(axis=1))


def _panel(judgement: Judgement, method: str) -> Picture:
    figure, axes = small(3.1, 2.9)
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=0.9, linestyle=(0, (4, 3)))
    told = []
    for init, (colour, marker, _) in looks(judgement.starts).items():
        points = _points(judgement, method, init)
        if points:
            sure, right, _ = zip(*points, strict=True)
            axes.plot(sure, right, color=colour, marker=marker, markersize=4.5, linewidth=1.2)
            error = judgement.row(method, init, judgement.budgets(method)[-1])
            off = error["further"]["calibration error"]["mean"] if error else None
            told.append(f"{start_name(init)} {score(off)}")
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.03, 1.03)
    title = method_name(method)
    return Picture(svg(figure), f"{title}: calibration error {', '.join(told)}.", title)
