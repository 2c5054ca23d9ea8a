"""Metrics by which predictions are scored: identifier, title and range of each.

Records name a metric by its identifier; its title is for people alone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric as records and the report know it."""

    id: str
    title: str
    value_range: tuple[float, float] | None  # between which it lies
    per_class_title: str = ""  # of its parts, if it is a mean over classes
    has_chance_level: bool = False  # one over the number of classes, by guessing


BALANCED_ACCURACY = "balanced_accuracy"
AUC = "auc"
BRIER_SCORE = "brier_score"
CALIBRATION_ERROR = "calibration_error"
MEAN_DICE = "mean_dice"
SURFACE_DICE = "surface_dice"
HD95_MM = "hd95_mm"
R_SQUARED = "r_squared"
MEAN_ABSOLUTE_ERROR = "mean_absolute_error"
FOUND_SHARE = "found_share"
DISTANCE_MM = "distance_mm"
SHOWN_SHARE = "shown_share"
ABSENT_SHARE = "absent_share"

METRICS: dict[str, Metric] = {
    metric.id: metric
    for metric in (
        Metric(BALANCED_ACCURACY, "balanced accuracy", (0.0, 1.0), "recall", True),
        Metric(AUC, "AUC", (0.0, 1.0)),
        Metric(BRIER_SCORE, "Brier score", (0.0, 2.0)),
        Metric(CALIBRATION_ERROR, "calibration error", (0.0, 1.0)),
        Metric(MEAN_DICE, "mean Dice", (0.0, 1.0), "Dice"),
        Metric(SURFACE_DICE, "surface Dice", (0.0, 1.0)),
        Metric(HD95_MM, "HD95 in mm", None),
        Metric(R_SQUARED, "R²", None),
        Metric(MEAN_ABSOLUTE_ERROR, "mean absolute error", None),
        Metric(FOUND_SHARE, "share found within the tolerance", (0.0, 1.0), "share found"),
        Metric(DISTANCE_MM, "mean distance in mm", None),
        Metric(SHOWN_SHARE, "found with confidence", (0.0, 1.0)),
        Metric(ABSENT_SHARE, "not here, where cut away", (0.0, 1.0)),
    )
}
