"""Diagnosis of a run from its metrics: one word, and one sentence with numbers and what to try.

The rules of all runs are here in a table, those of an objective's terms beside the terms; of those
that hold, the first of the most severe alarm gives the diagnosis. Each is a metric that was beyond
a threshold in all of the last few snapshots, because a single one may be an accident; a metric that
a run lacks, or that is nan, raises no alarm. Loss, gradient and
shortcuts are checked from the start, collapse and reconstruction skill only later in the run:
untrained embeddings look collapsed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Literal, get_args

from ssl_pipeline.monitoring.config import Alarm, Monitoring

MetricValues = Mapping[str, float | int]  # of one row, by the names of `METRICS`
DiagnosisName = Literal["healthy", "not_known"] | Alarm
# A rule returns the reason where it holds.
DiagnosisRule = Callable[[Sequence[MetricValues], Monitoring], str | None]
AlarmRule = tuple[Alarm, DiagnosisRule]  # a rule, and the alarm that it raises
Setting = Callable[[Monitoring], float]  # reads a setting
SEVERITY: tuple[Alarm, ...] = get_args(Alarm)  # most severe first


@dataclass(frozen=True)
class Diagnosis:
    """The state of a run, and the reason, in plain words."""

    name: DiagnosisName
    reason: str


def diagnose(
    history: Sequence[MetricValues], section: Monitoring, term_rules: Sequence[AlarmRule]
) -> Diagnosis:
    """Diagnose a run whose rows, oldest first, are `history`; metrics may be missing from them.

    `term_rules` are those of the terms of its objective.
    """
    for name, rule in sorted((*RULES, *term_rules), key=lambda each: SEVERITY.index(each[0])):
        reason = rule(history, section)
        if reason:
            return Diagnosis(name, reason)
    return Diagnosis("healthy", _healthy_reason(history, section))


def diagnose_whole_run(
    history: Sequence[MetricValues],
    section: Monitoring,
    term_rules: Sequence[AlarmRule],
    steps: tuple[int, int],
    log_every: int,
) -> Diagnosis:
    """Diagnose a run of these first and last steps: as not known where its rows are not all there.

    An alarm of the rows that are there stands. A gap of less than the steps between snapshots
    hides none, for alarms are of whole snapshots.
    """
    found = diagnose(history, section, term_rules)
    rows = [steps[0], *(int(row["step"]) for row in history), steps[1]]
    gap = max((after - before, before) for before, after in pairwise(rows))
    if found.name != "healthy" or gap[0] <= max(log_every, section.snapshot_every):
        return found
    return Diagnosis(
        "not_known",
        f"The metrics log has no row of the {gap[0]} steps after step {gap[1]}, for it was lost or "
        "damaged: nothing can be said of them.",
    )


def rows_after(history: Sequence[MetricValues], progress: float) -> list[MetricValues]:
    """The rows after this fraction of the run in which all terms have their full weight."""
    return [
        row
        for row in history
        if row.get("progress", 1.0) >= progress and row.get("ramp_factor", 1.0) >= 1.0
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
    """Compare the last windows with the best one before, once all terms have their full weight."""
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
    """Compare the last windows with the median before, once all terms have their full weight."""
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
    """A rule that holds where a metric is below its `minimum`, or above its `maximum`.

    `minus` is a metric that is subtracted, `after` the fraction of the run after which it is
    checked; `message` is a format string of the `value` and its `limit`.
    """

    metric: str
    message: str
    minus: str = ""
    minimum: Setting | None = None
    maximum: Setting | None = None
    after: Setting | None = None

    def __call__(self, history: Sequence[MetricValues], section: Monitoring) -> str | None:
        """Return the reason where all of the last snapshots are beyond the limit."""
        rows = rows_after(history, self.after(section)) if self.after else history
        values = metric_series(rows, self.metric, self.minus)[-section.patience :]
        if len(values) < section.patience:
            return None
        if self.minimum and max(values) < (limit := self.minimum(section)):
            return self.message.format(value=values[-1], limit=limit)
        if self.maximum and min(values) > (limit := self.maximum(section)):
            return self.message.format(value=values[-1], limit=limit)
        return None


RULES: tuple[AlarmRule, ...] = (
    ("diverging", _not_finite),
    ("diverging", _loss_climbs),
    ("diverging", _gradient_explodes),
    (
        "collapsed",
        Threshold(
            "embedding_drift",
            minimum=lambda settings: settings.min_drift,
            after=lambda settings: settings.collapse_after,
            message="The embeddings have not changed between snapshots (by {value:.1g} of their "
            "length; the alarm is below {limit:g}): the encoder is frozen or learns nothing. Check "
            "training.learning_rate and which parameters the optimizer holds.",
        ),
    ),
    (
        "collapsed",
        Threshold(
            "rankme_share",
            minimum=lambda settings: settings.min_rankme,
            after=lambda settings: settings.collapse_after,
            message="Embeddings use few directions: their effective rank is {value:.1%} of what so "
            "many samples could have (the alarm is below {limit:.0%}). Raise the weight of "
            "reconstruction, or lower training.learning_rate.",
        ),
    ),
    (
        "shortcut",
        Threshold(
            "histogram_retrieval",
            maximum=lambda settings: settings.max_histogram_retrieval,
            message="Histograms alone match {value:.0%} of views (the alarm is above {limit:.0%}): "
            "contrast needs no anatomy. Widen views.intensity, and make sure that both views of a "
            "sample are augmented independently.",
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
        f"reconstruction skill after {section.skill_after:.0%}, once all terms have their full "
        "weight."
    )
