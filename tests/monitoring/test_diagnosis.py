"""Diagnoses of histories with a known fault, and no alarm on healthy and on early ones."""

import math
import re

import pytest
from pydantic import ValidationError

from ssl_pipeline.monitoring import diagnosis as diagnoses
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.diagnosis import RULES, Threshold
from ssl_pipeline.objectives import Hybrid
from ssl_pipeline.objectives.terms.term import diagnosis_rules
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.metrics_registry import METRICS
from ssl_pipeline.views.config import Views

SECTION = Monitoring()
TERM_RULES = diagnosis_rules(Hybrid().list_terms())
HEALTHY = {
    "ramp_factor": 1.0, "loss": 1.2, "gradient_norm": 0.8, "reconstruction_skill": 0.3,
    "dimension_std": 0.9, "uniformity": -3.5, "rankme_share": 0.5, "embedding_drift": 0.05,
    "subject_contrast_snapshot": 1.0, "subject_contrast_chance": 4.5,
    "position_shortcut": -0.4, "histogram_retrieval": 0.1, "same_subject_loss": 0.0,
    "gradient_outside_body": 0.15, "data_wait": 0.02,
}  # fmt: skip


def history(records=10, upto=1.0, **metrics):
    """Rows up to this fraction of a run; a list gives a metric's values at the end."""
    rows = []
    for number in range(records):
        row = {**HEALTHY, "step": 100 * (number + 1), "progress": upto * (number + 1) / records}
        for metric, value in metrics.items():
            if not isinstance(value, list):
                row[metric] = value
            elif number >= records - len(value):
                row[metric] = value[number - records + len(value)]
        rows.append(row)
    return rows


def diagnose(rows, section):
    """The diagnosis of a run by all terms."""
    return diagnoses.diagnose(rows, section, TERM_RULES)


def test_a_healthy_run_says_so_with_its_numbers():
    diagnosis = diagnose(history(), SECTION)
    assert diagnosis.name == "healthy"
    assert "skill against in-painting 0.30" in diagnosis.reason
    assert "checked after" not in diagnosis.reason


def test_nothing_recorded_is_no_alarm():
    assert diagnose([], SECTION).name == "healthy"
    assert diagnose([{"step": 1}], SECTION).name == "healthy"


FAULTS = [
    ("diverging", {"loss": [math.nan]}, "The loss is nan"),
    ("diverging", {"gradient_norm": [math.inf]}, "gradient's norm is inf"),
    ("diverging", {"loss": [4.0, 4.0, 4.0]}, "climbed to at least 4 from its best, 1.2"),
    ("diverging", {"gradient_norm": [50.0, 60.0, 90.0]}, "at least 50"),
    ("collapsed", {"embedding_drift": 0.0}, "have not changed"),
    ("collapsed", {"dimension_std": 0.05}, "its spread is 0.05"),
    ("collapsed", {"uniformity": -0.01}, "uniformity is -0.01"),
    ("collapsed", {"rankme_share": 0.017}, "effective rank is 1.7%"),
    ("collapsed", {"subject_contrast_snapshot": 4.52}, "-0.02 below chance"),
    ("shortcut", {"position_shortcut": 0.97}, "it solves 97%"),
    ("shortcut", {"histogram_retrieval": 0.9}, "match 90%"),
    ("shortcut", {"same_subject_loss": 3.4}, "the loss between subjects is 3.40 nats"),
    ("shortcut", {"gradient_outside_body": 0.6}, "60% lies outside the foreground mask"),
    ("shortcut", {"reconstruction_skill": -0.4}, "skill -0.40"),
    ("data_bound", {"data_wait": 0.7}, "70% of the time"),
]


@pytest.mark.parametrize(("name", "metrics", "words"), FAULTS, ids=[words for *_, words in FAULTS])
def test_a_fault_has_its_diagnosis_with_the_number(name, metrics, words):
    diagnosis = diagnose(history(**metrics), SECTION)
    assert diagnosis.name == name
    assert words in diagnosis.reason
    assert diagnosis.reason.endswith(".")


@pytest.mark.parametrize("metric", ["gradient_outside_body", "reconstruction_skill"])
def test_what_the_mask_decides_names_the_mask_before_advice(metric):
    values = {"gradient_outside_body": 0.6, "reconstruction_skill": -0.4}
    reason = diagnose(history(**{metric: values[metric]}), SECTION).reason
    assert reason.index("mask may") < reason.index("Where it is right") < reason.index("lower ")


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": [4.0, 4.0, 1.2]},
        {"loss": [4.0, 1.2, 4.0]},
        {"gradient_norm": [50.0, 1.0, 50.0]},
        {"dimension_std": [0.05, 0.05]},
        {"data_wait": [0.9, 0.9, 0.4]},
        {"histogram_retrieval": [0.1, 0.9, 0.9]},
        {"reconstruction_skill": math.nan},
        {"position_shortcut": math.nan, "same_subject_loss": math.nan},
    ],
    ids=str,
)
def test_an_accident_or_half_a_fault_is_none(metrics):
    assert diagnose(history(**metrics), SECTION).name == "healthy"


def test_a_young_run_is_neither_collapsed_nor_on_a_shortcut():
    faults = {
        "dimension_std": 0.05,
        "uniformity": -0.01,
        "subject_contrast_snapshot": 4.5,
        "reconstruction_skill": -1.0,
        "embedding_drift": 0.0,
    }
    diagnosis = diagnose(history(upto=0.2, **faults), SECTION)
    assert diagnosis.name == "healthy"
    assert "Collapse is checked after 25%" in diagnosis.reason
    assert diagnose(history(ramp_factor=0.4, **faults), SECTION).name == "healthy"
    assert diagnose(history(upto=0.2, data_wait=0.9), SECTION).name == "data_bound"


def test_contrast_that_comes_in_is_no_divergence():
    """The sum of losses and its gradient rise with the ramp, whatever the model does."""
    ramped = history(
        10, ramp_factor=[0.0] * 4 + [0.5] + [1.0] * 5, loss=[0.1] * 4 + [2] + [4, 3, 3, 3, 3]
    )
    for row in ramped[:4]:
        row["gradient_norm"] = 0.01
    assert diagnose(ramped, SECTION).name == "healthy"


def test_a_loss_that_has_lost_half_of_its_gain_diverges():
    falling = [0.4, 0.4, 0.4, 0.1, 0.1, 0.1]
    assert diagnose(history(9, loss=[*falling, 0.24, 0.24, 0.24]), SECTION).name == "healthy"
    assert diagnose(history(9, loss=[*falling, 0.26, 0.26, 0.26]), SECTION).name == "diverging"


def test_a_batch_of_bad_luck_is_no_divergence():
    """Rows between records are averaged: single steps of small batches jump."""
    rows = history(8, loss=0.2)
    lucky = [{**rows[-1], "step": 700 + n, "loss": 1.0 if n % 10 == 0 else 0.2} for n in range(100)]
    assert diagnose([*rows, *lucky], SECTION).name == "healthy"


def test_contrast_between_places_alone_spreads_less_and_is_sound():
    """One region, no loss between subjects: less than with both, and far from a collapse."""
    assert diagnose(history(dimension_std=0.24, uniformity=-0.25), SECTION).name == "healthy"
    assert diagnose(history(dimension_std=0.09), SECTION).name == "collapsed"
    assert diagnose(history(uniformity=-0.04), SECTION).name == "collapsed"


def test_the_most_severe_fault_is_reported():
    faults = {"data_wait": 0.9, "reconstruction_skill": -1.0, "dimension_std": 0.0}
    assert diagnose(history(**faults), SECTION).name == "collapsed"
    assert diagnose(history(**faults, loss=[math.nan]), SECTION).name == "diverging"
    assert diagnose(history(data_wait=0.9, reconstruction_skill=-1.0), SECTION).name == "shortcut"


def test_settings_move_the_diagnosis():
    strict = Monitoring(min_dimension_std=0.95, patience=1)
    assert diagnose(history(), strict).name == "collapsed"
    assert diagnose(history(dimension_std=[0.96]), strict).name == "healthy"


def test_rows_of_several_kinds_may_be_mixed():
    log = [
        {"step": n, "progress": 1.0, "ramp_factor": 0.4, "loss": 1.0, "data_wait": 0.9}
        for n in range(9)
    ]
    snapshot = {"step": 9, "progress": 1.0, "ramp_factor": 0.4, "dimension_std": 0.9}
    assert diagnose([*log, snapshot], Monitoring(snapshot_every=3)).name == "data_bound"


def test_a_short_wait_between_snapshots_is_no_alarm():
    """A row before a checkpoint may tell of one step; windows between records count."""
    rows = history(9)
    stalls = [
        {**rows[-1], "step": 900 + n, "data_wait": 0.1 if n < 97 else 0.9} for n in range(100)
    ]
    assert diagnose([*rows, *stalls], SECTION).name == "healthy"
    assert diagnose([*rows, *stalls], Monitoring(snapshot_every=1)).name == "data_bound"


def test_every_threshold_names_metrics_and_one_limit():
    thresholds = [rule for _, rule in (*RULES, *TERM_RULES) if isinstance(rule, Threshold)]
    assert len(thresholds) == 10
    for threshold in thresholds:
        assert {name for name in (threshold.metric, threshold.minus) if name} <= METRICS.keys()
        assert (threshold.minimum is None) != (threshold.maximum is None)


def test_a_run_is_not_diagnosed_by_terms_that_its_objective_lacks():
    rows = history(position_shortcut=0.97)
    assert diagnose(rows, SECTION).name == "shortcut"
    assert diagnoses.diagnose(rows, SECTION, []).name == "healthy"


def test_what_a_reason_advises_is_a_setting_of_the_study():
    sections = {"training": Training(), "views": Views(), "objective": Hybrid()}
    named = {
        setting
        for name, metrics, _ in FAULTS
        for setting in re.findall(r"(\w+\.[\w.]*\w)", diagnose(history(**metrics), SECTION).reason)
        if setting.split(".")[0] in sections
    }
    assert len(named) > 8
    for setting in named:
        section, *names = setting.split(".")
        value = sections[section]
        for name in names:
            value = getattr(value, name)


def test_an_unknown_diagnosis_cannot_stop_a_run():
    assert Monitoring(stop_on=("collapsed", "data_bound")).stop_on == (
        "collapsed",
        "data_bound",
    )
    with pytest.raises(ValidationError):
        Monitoring(stop_on=("healthy",))
