"""Metrics of landmarks that were searched for in scans: distances, and what a confidence tells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_pipeline.evaluation.metrics.metric import (
    ABSENT_SHARE,
    DISTANCE_MM,
    FOUND_SHARE,
    SHOWN_SHARE,
)
from ssl_pipeline.evaluation.metrics.scores import (
    CellScores,
    Predictions,
    SubjectClassTable,
    class_ratios,
    mean_class_ratio,
)

# The confidence from which on a place counts as shown; what it means is said where it is computed.
HERE = 0.97
Measure = Callable[[Mapping[str, Any]], float | None]  # of a row; None where it has none


def score_landmarks(
    subjects: Sequence[str],
    landmarks: int,
    predictions: Predictions,
    tolerance_mm: float,
    least_confidence: float,
) -> CellScores:
    """Metrics of rows of one scan and landmark each, as means over landmarks.

    The share found within the tolerance, and the distance from the truth; where the method has a
    confidence, the share of landmarks that are there and reach `least_confidence`, and the share of
    those that do not when their place is cut away.
    """

    def is_within(row: Mapping[str, Any]) -> float:
        return float(row["distance_mm"] <= tolerance_mm)

    def is_confident(row: Mapping[str, Any]) -> float | None:
        return None if row["confidence"] is None else float(row["confidence"] >= least_confidence)

    def is_absent(row: Mapping[str, Any]) -> float | None:
        known = row["confidence_without"]
        return None if known is None else float(known < least_confidence)

    measures: dict[str, Measure] = {
        FOUND_SHARE: is_within,
        DISTANCE_MM: lambda row: float(row["distance_mm"]),
        SHOWN_SHARE: is_confident,
        ABSENT_SHARE: is_absent,
    }
    tables = {
        name: landmark_table(subjects, landmarks, predictions, measure)
        for name, measure in measures.items()
    }
    metrics = {name: mean_class_ratio(*table) for name, table in tables.items()}
    return CellScores(metrics, class_ratios(*tables[FOUND_SHARE]))


def landmark_table(
    subjects: Sequence[str], landmarks: int, predictions: Predictions, measure: Measure
) -> tuple[SubjectClassTable, SubjectClassTable]:
    """Sums of a measure by subject and landmark, and of how many rows."""
    index = {subject: row for row, subject in enumerate(subjects)}
    total, count = np.zeros((2, len(subjects), landmarks))
    for row in predictions:
        value = measure(row)
        if value is not None:
            total[index[row["subject"]], row["landmark"]] += value
            count[index[row["subject"]], row["landmark"]] += 1
    return total, count
