"""The difference of two encoders on one task, paired by scored subject, for the gate."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.cells import Cell, read_cell
from ssl_pipeline.evaluation.metrics.scores import Predictions, ScoreFunction
from ssl_pipeline.evaluation.records import Results
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.statistics.gate import PairedContrast


def paired_scores(
    folder: Path,
    results: Results,
    method: str,
    weights: Mapping[str, str],
    score: ScoreFunction,
) -> PairedContrast | None:
    """The task's own metric of the first of two encoders less that of the second.

    With most labelled subjects. `folder` is that of the task's results and cells, `weights` has the
    hash of each encoder's weights, by its name there. None where a cell of either failed, or has no
    score. Raises UserError where a cell is of other weights.
    """
    rows = [
        max(own, key=lambda row: row.subjects or math.inf)
        for name in weights
        if (own := [r for r in results.rows if (r.method, r.initialization) == (method, name)])
    ]
    if len(rows) < 2 or rows[0].subjects != rows[1].subjects:
        return None
    seeds = range(len(rows[0].per_seed))
    predictions = [
        _predictions(folder, Cell(*row.key, seed), weights[row.initialization])
        for row in rows
        for seed in seeds
    ]
    subjects = sorted({row["subject"] for each in predictions for row in each})
    scores = [score(subjects, each).primary for each in predictions]
    ours, theirs = scores[: len(seeds)], scores[len(seeds) :]
    difference = MetricEstimate.from_seeds(ours).minus(MetricEstimate.from_seeds(theirs))
    if not np.isfinite(difference.pseudovalues).all():
        return None
    return PairedContrast.from_estimate(difference)


def _predictions(folder: Path, cell: Cell, weights: str) -> Predictions:
    record = read_cell(cell.path(folder))
    if record.encoder != weights:
        raise UserError(
            f"{folder} has results of an encoder that was {cell.initialization} before: run its "
            "stage again, which computes nothing twice."
        )
    return record.predictions
