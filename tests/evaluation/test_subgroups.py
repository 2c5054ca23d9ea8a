"""Scores of subgroups, the gap between them, and training on one subgroup."""

import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.config import Evaluate, Probe
from ssl_pipeline.evaluation.runner.probe import run_probe
from ssl_pipeline.evaluation.runner.subject_splits import split_subjects
from ssl_pipeline.evaluation.statistics.estimates import MetricEstimate
from ssl_pipeline.evaluation.statistics.subgroups import subgroup_gap
from ssl_pipeline.evaluation.tasks import Classification
from ssl_pipeline.store.catalog import scan_attribute
from tests.evaluation.conftest import QUICK_LINEAR

CORNER = Classification(title="Corner", target="corner", classes={0: "no", 1: "yes"})
BY_PROTOCOL = Evaluate(subjects=(0,), subgroups=("protocol",))


def estimate(level: float, subjects: int, seed: int) -> MetricEstimate:
    parts = np.random.default_rng(seed).normal(level, 0.1, (3, subjects))
    return MetricEstimate(parts.mean(axis=1), parts)


def test_each_group_has_rows_of_its_own_subjects(planted, tmp_path):
    context = planted.context(tmp_path, evaluate=BY_PROTOCOL)
    results = run_probe(CORNER, Probe(methods=(QUICK_LINEAR,)), context)
    assert [(g.attribute, g.value, g.n_test_subjects) for g in results.subgroups] == [
        ("protocol", "a", 5),
        ("protocol", "b", 5),
    ]
    whole = {(r.method, r.initialization): r.mean for r in results.rows}
    halves = [{(r.method, r.initialization): r.mean for r in g.rows} for g in results.subgroups]
    for key, mean in whole.items():  # of two scans a subject, one a class: means of means
        assert mean == pytest.approx((halves[0][key] + halves[1][key]) / 2, abs=1e-5)
    assert all(
        row.other_metrics.keys() == results.rows[0].other_metrics.keys()
        and row.per_class.keys() == {"no", "yes"}
        for group in results.subgroups
        for row in group.rows
    )
    for found in results.gaps:
        a, b = (half[found.method, found.initialization] for half in halves)
        assert found.mean == pytest.approx(abs(a - b), abs=1e-5)
        assert found.low is None  # five subjects give no interval


def test_groups_change_nothing_else(planted, tmp_path):
    probe = Probe(methods=(QUICK_LINEAR,))
    plain = planted.context(tmp_path, evaluate=Evaluate(subjects=(0,)))
    first = run_probe(CORNER, probe, plain)
    cells = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    second = run_probe(CORNER, probe, planted.context(tmp_path, evaluate=BY_PROTOCOL))
    assert {p: p.stat().st_mtime_ns for p in cells} == cells
    for key in ("rows", "differences"):
        assert getattr(first, key) == getattr(second, key)


def test_a_gap_has_an_interval_where_both_groups_have_subjects_enough():
    a, b, few = estimate(0.9, 30, 0), estimate(0.5, 30, 1), estimate(0.7, 9, 2)
    wide = subgroup_gap({"a": a, "b": b, "c": few}, 0.95)
    assert (wide.best, wide.worst) == ("a", "b")
    assert 0 < wide.low < 0.4 < wide.high < 0.8
    assert subgroup_gap({"a": a, "c": few}, 0.95).low is None


def test_a_task_may_learn_from_one_group_alone(planted, tmp_path):
    task = CORNER.model_copy(update={"train_on": {"protocol": ("a",)}})
    found = split_subjects(task, planted.catalog.entries, "test")
    protocols = {scan_attribute(e, "protocol") for e in found.entries if e.split == "train"}
    assert protocols == {"a"} and len(found.train_subjects) == 4 and len(found.test_subjects) == 10
    assert found.excluded == ()
    context = planted.context(tmp_path, evaluate=BY_PROTOCOL)
    results = run_probe(task, Probe(methods=(QUICK_LINEAR,)), context)
    assert results.n_train_subjects == 4
    assert {group.value for group in results.subgroups} == {"a", "b"}


def test_a_task_may_be_scored_on_another_group_alone(planted):
    task = CORNER.model_copy(update={"train_on": {"protocol": ("a",)}})
    other = task.model_copy(update={"score_on": {"protocol": ("b",)}})
    found = split_subjects(other, planted.catalog.entries, "test")
    seen = {(e.split, scan_attribute(e, "protocol")) for e in found.entries}
    assert seen == {("train", "a"), ("test", "b")}
    assert task.is_shift and other.is_shift and not CORNER.is_shift
    assert not task.model_copy(update={"score_on": task.train_on}).is_shift


def test_groups_that_nobody_has_are_refused(planted, tmp_path):
    unknown = Evaluate(subjects=(0,), subgroups=("scanner",))
    with pytest.raises(UserError, match=r"evaluate\.subgroups: no scan has 'scanner'"):
        run_probe(CORNER, Probe(), planted.context(tmp_path, evaluate=unknown))
    task = CORNER.model_copy(update={"train_on": {"protocol": ("c",)}})
    with pytest.raises(UserError, match=r"train_on\.protocol: no scan has 'c'"):
        split_subjects(task, planted.catalog.entries, "test")
