"""The gate: what it promotes, keeps and leaves open, on simulated encoders with known truth."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_pipeline.evaluation.statistics.gate import (
    Criterion,
    PairedContrast,
    decide,
    planned_subjects,
)
from tests.evaluation.gate_simulation import CONFIDENCE, SD, gain, loss, pilot_criteria, promoted

STUDIES = 60


def contrast(mean, subjects=100, sd=SD, seed_variance=0.0):
    return PairedContrast(
        mean=mean,
        subject_variance=sd**2 / subjects,
        seed_variance=seed_variance,
        n_subjects=subjects,
        n_seeds=3,
    )


def most_by_chance(rate, studies=STUDIES):
    """The count that studies with this rate exceed in at most one of 1,000 runs."""
    tail = 1.0
    for count in range(studies + 1):
        tail -= comb(studies, count) * rate**count * (1 - rate) ** (studies - count)
        if tail < 1e-3:
            return count
    return studies


@pytest.mark.parametrize(
    ("losses", "gains"),
    [((0.0,), (0.0, 0.0, 0.0)), ((-0.02,), (0.1,)), ((-0.02, 0.0), (0.0,))],
    ids=["no gain", "a loss as large as allowed", "neither"],
)
def test_a_challenger_that_is_not_better_is_promoted_in_at_most_one_of_twenty(losses, gains):
    rng = np.random.default_rng(0)
    assert promoted(rng, 40, losses, gains, STUDIES) <= most_by_chance(0.05)


def test_a_better_one_is_promoted_in_four_of_five_with_the_subjects_that_are_asked_for():
    rng = np.random.default_rng(1)
    needed = max(planned_subjects(pilot_criteria(rng), CONFIDENCE))
    assert 60 < needed < 200
    missed = STUDIES - promoted(rng, needed, (0.0, 0.0), (0.02,), STUDIES)
    assert missed <= most_by_chance(0.2)
    assert promoted(rng, needed // 4, (0.0, 0.0), (0.02,), STUDIES) < 0.5 * STUDIES


def test_the_textbook_number_of_subjects():
    """(1.96 + 0.84)^2 (SD / margin)^2 = 49, and a few more, for the SD is estimated."""
    (needed,) = planned_subjects([loss("a", contrast(0.0, subjects=34))], CONFIDENCE)
    assert 49 <= needed <= 53


@pytest.mark.parametrize(
    ("criteria", "verdict", "reason"),
    [
        ([loss("a", contrast(0.0)), gain("b", contrast(0.03))], "promoted", "better in b"),
        ([loss("a", contrast(-0.04)), gain("b", contrast(0.3))], "kept", "allowed in a"),
        ([loss("a", contrast(0.0)), gain("b", contrast(0.0))], "kept", "No task gains"),
        ([loss("a", contrast(-0.015)), gain("b", contrast(0.3))], "undecided", "a is undecided"),
        ([gain("b", contrast(0.009, sd=0.1))], "undecided", "b is undecided"),
        ([gain("b", contrast(0.3, subjects=9))], "undecided", "about 10 would decide"),
        ([loss("a", contrast(0.0, seed_variance=1.0))], "undecided", "no number of subjects"),
    ],
)
def test_verdicts_say_why(criteria, verdict, reason):
    found = decide(criteria, [], CONFIDENCE)
    assert (found.verdict, reason in found.reason) == (verdict, True), found.reason


def test_one_gain_of_several_is_enough_and_weighs_its_correction():
    gains = [gain(name, contrast(0.0, sd=0.2)) for name in "abc"]
    shown = gain("d", contrast(0.0105))
    assert decide([shown], [], CONFIDENCE).verdict == "promoted"
    assert decide([*gains, shown], [], CONFIDENCE).verdict == "undecided"
    assert decide([*gains, gain("d", contrast(0.014))], [], CONFIDENCE).verdict == "promoted"


def test_what_cannot_be_measured_decides_nothing():
    lost = Criterion(
        name="old domain", kind="loss", margin=0, expected=0.1, contrast=None, absence="no scan"
    )
    found = decide([lost, gain("b", contrast(0.3))], [], CONFIDENCE)
    assert found.verdict == "undecided" and found.subjects_needed is None
    assert "old domain cannot be measured: no scan." in found.reason


def test_an_obstacle_forbids_what_is_better():
    found = decide([gain("b", contrast(0.3))], ["The run collapsed."], CONFIDENCE)
    assert (found.verdict, found.reason) == ("kept", "The run collapsed.")


@given(
    means=st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=4),
    drop=st.floats(0, 0.1),
    subjects=st.integers(10, 400),
)
@settings(max_examples=60, deadline=None)
def test_a_worse_challenger_is_never_better_placed(means, drop, subjects):
    rank = {"kept": 0, "undecided": 1, "promoted": 2}

    def verdict(shift):
        criteria = [loss(f"k{n}", contrast(m - shift, subjects)) for n, m in enumerate(means[1:])]
        return decide([*criteria, gain("g", contrast(means[0] - shift, subjects))], [], CONFIDENCE)

    before, after = verdict(0.0), verdict(drop)
    assert rank[after.verdict] <= rank[before.verdict]
    assert (before.subjects_needed or subjects + 1) > subjects
