"""Diagnosis of a run from its metrics: one word, and one sentence with numbers and what to try.

The rules stand in a table, most severe first, and the first that holds gives the diagnosis. Each is
a metric that was beyond a threshold in all of the last few snapshots, because a single one may be
an accident; a metric that a run lacks, or that is nan, raises no alarm. Loss, gradient and
shortcuts are checked from the start, collapse and reconstruction skill only later in the run:
untrained embeddings look collapsed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from ssl_pipeline.monitoring.config import Alarm, Monitoring

MetricValues = Mapping[str, float | int]  # of one row, by the names of `METRICS`
DiagnosisName = Literal["healthy"] | Alarm
# A rule returns the reason where it holds.
DiagnosisRule = Callable[[Sequence[MetricValues], Monitoring], str | None]


@dataclass(frozen=True)
class Diagnosis:
    """The state of a run, and the reason, in plain words."""

    name: DiagnosisName
    reason: str


def diagnose(history: Sequence[MetricValues], section: Monitoring) -> Diagnosis:
    """Diagnose a run whose rows, oldest first, are `history`; metrics may be missing from them."""
    for name, rule in RULES:
        reason = rule(history, section)
        if reason:
            return Diagnosis(name, reason)
    return Diagnosis("healthy", _healthy_reason(history, section))


def rows_after(history: Sequence[MetricValues], progress: float) -> list[MetricValues]:
    """The rows after this fraction of the run in which contrast has its full weight."""
    return [
        row
        for row in history
        if row.get("progress", 1.0) >= progress and row.get("contrast_factor", 1.0) >= 1.0
    ]


def metric_series(history: Sequence[MetricValues], metric: str, minus: str = "") -> list[float]:
    """The finite values of a metric, less those of `minus` where it is given, oldest first."""
    values = (
        row.get(metric, math.nan) - (row.get(minus, math.nan) if minus else 0.0) for row in history
    )
    return [value for value in values if math.isfinite(value)]


def _not_finite(history: Sequence[MetricValues], section: Monitoring) -> str | None:
    for metric, words in (("loss", "loss"), ("gradient_norm", "gradient's norm")):
        value = next((row[metric] for row in reversed(history) if metric in row), 0.0)
        if not math.isfinite(value):
            return (
                f"The {words} is {value}: lower training.learning_rate, or set "
                "training.precision to fp32."
            )
    return None


def window_means(history: Sequence[MetricValues], metric: str, section: Monitoring) -> list[float]:
    """Means of a metric over every complete window of `snapshot_every` steps of `history`.

    Rows between snapshots count too: the loss of a single step depends mostly on its batch, and a
    row may stand for a hundred steps or, before a checkpoint, for one.
    """
    found: dict[int, list[float]] = {}
    whole = history[-1]["step"] // section.snapshot_every * section.snapshot_every if history else 0
    for row in history:
        if row["step"] <= whole and math.isfinite(row.get(metric, math.nan)):
            found.setdefault(int(row["step"] - 1) // section.snapshot_every, []).append(row[metric])
    return [fmean(values) for values in found.values()]


def _loss_climbs(history: Sequence[MetricValues], section: Monitoring) -> str | None:
    """Compare the last windows with the best one before, once contrast has its full weight."""
    losses = window_means(rows_after(history, 0.0), "loss", section)
    before, last = losses[: -section.patience], losses[-section.patience :]
    if not before:
        return None
    best, now = min(before), min(last)
    limit = best + section.max_loss_rise * max(losses[0] - best, abs(best))
    if now <= limit:
        return None
    return (
        f"The loss has climbed to at least {now:.3g} from its best, {best:.3g} (the alarm is above "
        f"{limit:.3g}): lower training.learning_rate, or make training.warmup longer."
    )


def _gradient_explodes(history: Sequence[MetricValues], section: Monitoring) -> str | None:
    """Compare the last windows with the median before, once contrast has its full weight."""
    norms = window_means(rows_after(history, 0.0), "gradient_norm", section)
    before, last = norms[: -section.patience], norms[-section.patience :]
    if len(before) < section.patience or min(last) <= section.max_gradient_rise * median(before):
        return None
    return (
        f"The gradient's norm has been at least {min(last):.3g} for {len(last)} windows, after a "
        f"median of {median(before):.3g} (the alarm is {section.max_gradient_rise:g} times that): "
        "lower training.learning_rate."
    )


def _data_bound_reason(history: Sequence[MetricValues], section: Monitoring) -> str | None:
    """Check the last windows, on the rank that waits most."""
    shares = window_means(history, "data_wait", section)[-section.patience :]
    if len(shares) < section.patience or min(shares) <= section.max_data_wait:
        return None
    return (
        f"The device waits for data {shares[-1]:.0%} of the time (the alarm is above "
        f"{section.max_data_wait:.0%}): keep the store on a faster disk, give the reader more "
        "cores, or use smaller crops."
    )


@dataclass(frozen=True)
class Threshold:
    """A rule that holds where a metric is below `min_setting`, or above `max_setting`.

    `minus` is a metric that is subtracted, `after_setting` the setting of the fraction of the run
    after which it is checked; `message` is a format string of the `value` and its `limit`.
    """

    metric: str
    message: str
    minus: str = ""
    min_setting: str = ""
    max_setting: str = ""
    after_setting: str = ""

    def __call__(self, history: Sequence[MetricValues], section: Monitoring) -> str | None:
        """Return the reason where all of the last snapshots are beyond the limit."""
        rows = (
            rows_after(history, getattr(section, self.after_setting))
            if self.after_setting
            else history
        )
        values = metric_series(rows, self.metric, self.minus)[-section.patience :]
        limit: float = getattr(section, self.min_setting or self.max_setting)
        beyond = [value < limit if self.min_setting else value > limit for value in values]
        if len(values) < section.patience or not all(beyond):
            return None
        return self.message.format(value=values[-1], limit=limit)


RULES: tuple[tuple[Alarm, DiagnosisRule], ...] = (
    ("diverging", _not_finite),
    ("diverging", _loss_climbs),
    ("diverging", _gradient_explodes),
    (
        "collapsed",
        Threshold(
            "embedding_drift",
            min_setting="min_drift",
            after_setting="collapse_after",
            message="The embeddings have not changed between snapshots (by {value:.1g} of their "
            "length; the alarm is below {limit:g}): the encoder is frozen or learns nothing. Check "
            "training.learning_rate and which parameters the optimizer holds.",
        ),
    ),
    (
        "collapsed",
        Threshold(
            "dimension_std",
            min_setting="min_dimension_std",
            after_setting="collapse_after",
            message="Samples of all subjects have nearly one embedding: its spread is {value:.2f} "
            "(about 1 is healthy, the alarm is below {limit:g}). Raise training.batch_size or "
            "objective.contrast.subject_weight, or lower training.learning_rate.",
        ),
    ),
    (
        "collapsed",
        Threshold(
            "uniformity",
            max_setting="max_uniformity",
            after_setting="collapse_after",
            message="Embeddings crowd into one part of the sphere: their uniformity is "
            "{value:.2f} (about -4 is even, 0 is one point, the alarm is above {limit:g}). Raise "
            "training.batch_size, or lower objective.contrast.temperature.",
        ),
    ),
    (
        "collapsed",
        Threshold(
            "rankme_share",
            min_setting="min_rankme",
            after_setting="collapse_after",
            message="Embeddings use few directions: their effective rank is {value:.1%} of what so "
            "many samples could have (the alarm is below {limit:.0%}). Raise the weight of "
            "reconstruction, or lower training.learning_rate.",
        ),
    ),
    (
        "collapsed",
        Threshold(
            "subject_contrast_chance",
            minus="subject_contrast_snapshot",
            min_setting="min_chance_margin",
            after_setting="collapse_after",
            message="The loss between subjects is {value:.2f} below chance (the alarm is below "
            "{limit:g}): subjects are not distinguished. Raise training.learning_rate or "
            "training.batch_size, or lower objective.contrast.temperature.",
        ),
    ),
    (
        "shortcut",
        Threshold(
            "position_shortcut",
            max_setting="max_position_shortcut",
            message="The encoder knows where crops lie: without any content it solves {value:.0%} "
            "of the loss between locations (the alarm is above {limit:.0%}), by position and not "
            "by anatomy. Make sure that positions are relative to the crop alone.",
        ),
    ),
    (
        "shortcut",
        Threshold(
            "histogram_retrieval",
            max_setting="max_histogram_retrieval",
            message="Histograms alone match {value:.0%} of views (the alarm is above {limit:.0%}): "
            "contrast needs no anatomy. Widen views.intensity, and make sure that both views of a "
            "sample are augmented independently.",
        ),
    ),
    (
        "shortcut",
        Threshold(
            "same_subject_loss",
            max_setting="max_same_subject_loss",
            message="Samples of one subject are negatives of each other: where all samples are of "
            "one, the loss between subjects is {value:.2f} nats (0 is correct, the alarm is above "
            "{limit:g}). Make sure that the objective compares subjects alone.",
        ),
    ),
    (
        "shortcut",
        Threshold(
            "gradient_outside_body",
            max_setting="max_gradient_outside",
            message="Of the reconstruction gradient {value:.0%} lies outside the body (the alarm "
            "is above {limit:.0%}): the model learns padding and air. Lower "
            "objective.reconstruction.background_weight, and make sure that padding has no weight.",
        ),
    ),
    (
        "shortcut",
        Threshold(
            "reconstruction_skill",
            min_setting="min_skill",
            after_setting="skill_after",
            message="Reconstruction of the body is no better than smooth in-painting (skill "
            "{value:.2f}, the alarm is below {limit:g}): padding and air dominate, or the run is "
            "too short. Lower objective.reconstruction.background_weight or views.max_background, "
            "or train longer.",
        ),
    ),
    ("data_bound", _data_bound_reason),
)


def _healthy_reason(history: Sequence[MetricValues], section: Monitoring) -> str:
    """The last numbers of a healthy run, and what has not been checked yet."""
    shown = [
        f"{words} {values[-1]:.2f}"
        for metric, words in (
            ("reconstruction_skill", "skill against in-painting"),
            ("dimension_std", "spread"),
            ("rankme_share", "effective rank over its ceiling"),
            ("region_accuracy", "kNN accuracy on the body region"),
            ("data_wait", "fraction of time waiting for data"),
        )
        if (values := metric_series(history, metric))
    ]
    summary = f"No alarm: {', '.join(shown)}." if shown else "No alarm."
    if rows_after(history, section.skill_after):
        return summary
    return (
        f"{summary} Collapse is checked after {section.collapse_after:.0%} of the run and "
        f"reconstruction skill after {section.skill_after:.0%}, once contrast has its full weight."
    )
