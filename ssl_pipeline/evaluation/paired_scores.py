"""The difference of two encoders on one task, paired by scored subject, for the gate."""

import math
from pathlib import Path

import numpy as np

from ssl_pipeline.evaluation.cells import Cell, read_cell
from ssl_pipeline.evaluation.metrics.scores import Predictions, ScoreFunction
from ssl_pipeline.evaluation.records import Results, ScoreRow
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.statistics.gate import PairedContrast


def paired_scores(
    folder: Path, results: Results, method: str, first: str, second: str, score: ScoreFunction
) -> PairedContrast | None:
    """The task's own metric of `first` less that of `second`, with most labelled subjects.

    `folder` is that of the task's results and cells. None where a cell of either failed, or has no
    score.
    """
    rows = [
        max(own, key=lambda row: row.subjects or math.inf)
        for name in (first, second)
        if (own := [r for r in results.rows if (r.method, r.initialization) == (method, name)])
    ]
    if len(rows) < 2 or rows[0].subjects != rows[1].subjects:
        return None
    seeds = range(len(rows[0].per_seed))
    predictions = [_predictions(folder, row, seed) for row in rows for seed in seeds]
    subjects = sorted({row["subject"] for each in predictions for row in each})
    scores = [score(subjects, each).primary for each in predictions]
    ours, theirs = scores[: len(seeds)], scores[len(seeds) :]
    difference = MetricEstimate.from_seeds(ours).minus(MetricEstimate.from_seeds(theirs))
    if not np.isfinite(difference.pseudovalues).all():
        return None
    return PairedContrast.from_estimate(difference)


def _predictions(folder: Path, row: ScoreRow, seed: int) -> Predictions:
    return read_cell(Cell(*row.key, seed).path(folder)).predictions
