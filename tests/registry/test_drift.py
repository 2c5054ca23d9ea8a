"""Drift of new scans from known ones, on samples whose truth is known."""

import math

import numpy as np
import pytest

from ssl_pipeline.evaluation.statistics.intervals import MIN_SUBJECTS
from ssl_pipeline.registry.drift import (
    HEADERS,
    MeasuredScans,
    drift_tests,
    feature_distances,
    header_values,
    unusual_headers,
    verdict_values,
)
from ssl_pipeline.volumes.inventory import Scan


def sample(rng, subjects=20, domain="a", shift=0.0, prefix="s"):
    values = rng.standard_normal((subjects, 3)) + shift
    names = [f"{prefix}{number}" for number in range(subjects)]
    return MeasuredScans(values, names, [domain] * subjects)


def joined(*parts):
    return MeasuredScans(
        np.concatenate([part.values for part in parts]),
        [name for part in parts for name in part.subjects],
        [name for part in parts for name in part.domains],
    )


def scan(**changes):
    own = {"id": "c0de", "root": "head", "targets": {}, "labels": {}, "quality": "accepted"}
    own |= {"format": "NIfTI", "orientation": "LPS", "size_bytes": 4000}
    own |= {"shape": (10, 20, 5), "spacing_mm": (1.0, 1.0, 3.0)}
    return Scan(**(own | changes))


def test_only_the_domain_and_measure_that_changed_are_found():
    rng = np.random.default_rng(0)
    known = joined(sample(rng), sample(rng, domain="b", prefix="t"))
    new = joined(sample(rng, prefix="u"), sample(rng, domain="b", shift=2, prefix="v"))
    same = joined(sample(rng, prefix="u"), sample(rng, domain="b", prefix="v"))
    tests = drift_tests({"features": (new, known), "headers": (same, known)}, rng)
    assert [(t.domain, t.measure) for t in tests if t.is_drift(0.05)] == [("b", "features")]
    assert [t.new_subjects for t in tests] == [20] * 4 == [t.known_subjects for t in tests]


def test_p_values_are_corrected_for_all_tests():
    rng = np.random.default_rng(0)
    known = sample(rng)
    (alone,) = drift_tests({"features": (sample(rng, shift=2, prefix="n"), known)}, rng)
    new = {name: (sample(rng, prefix="n"), known) for name in "abcd"}
    new["features"] = (sample(rng, shift=2, prefix="n"), known)
    *_, among = drift_tests(new, rng)
    assert alone.corrected_p_value == alone.p_value
    assert among.corrected_p_value == pytest.approx(5 * among.p_value)


def test_too_few_subjects_are_no_evidence():
    rng = np.random.default_rng(0)
    few = sample(rng, MIN_SUBJECTS - 1, shift=9, prefix="n")
    (test,) = drift_tests({"features": (few, sample(rng))}, rng)
    assert test.p_value is None and not test.is_drift(0.05)
    twice = joined(few, few)  # more scans of the same people
    (test,) = drift_tests({"features": (twice, sample(rng))}, rng)
    assert test.p_value is None and test.new_subjects == MIN_SUBJECTS - 1


def test_a_domain_that_is_new_is_compared_with_all_that_is_known():
    rng = np.random.default_rng(0)
    known = joined(sample(rng), sample(rng, domain="b", prefix="t"))
    like, unlike = (sample(rng, domain="c", shift=shift, prefix="n") for shift in (0, 2))
    for new, is_drift in ((like, False), (unlike, True)):
        (test,) = drift_tests({"features": (new, known)}, rng)
        assert test.known_subjects == 40 and test.is_drift(0.05) == is_drift


def test_scans_of_one_subject_count_once():
    values = np.array([[1.0], [5.0], [3.0]])
    own = MeasuredScans(values, ["x", "y", "x"], ["a"] * 3)
    assert own.by_subject().tolist() == [[2.0], [5.0]] and own.n_subjects == 2


def test_headers_are_those_of_stored_axes_whatever_the_order_in_the_file():
    straight = scan()
    turned = scan(orientation="SPL", shape=(5, 20, 10), spacing_mm=(3.0, 1.0, 1.0))
    assert header_values(straight) == pytest.approx(header_values(turned))
    assert np.exp(header_values(straight)) == pytest.approx([3, 1, 1, 15, 20, 10, 4])
    thick = scan(spacing_mm=(1.0, 1.0, 3.5))
    known = np.array([header_values(straight), header_values(scan(spacing_mm=(1.0, 1.0, 2.0)))])
    assert unusual_headers(header_values(thick), known) == [HEADERS[0], HEADERS[3]]
    assert unusual_headers(header_values(turned), known) == []


def test_verdicts_are_repairs_and_assumptions():
    assert verdict_values(scan()) == [0, 0]
    assert verdict_values(scan(repair="turned", note="modality assumed")) == [1, 1]


def test_distances_are_largest_for_the_scan_that_is_unlike():
    rng = np.random.default_rng(0)
    known = sample(rng, shift=5)
    new = joined(sample(rng, shift=5, prefix="n"), sample(rng, 1, shift=-5, prefix="o"))
    assert feature_distances(new, known).argmax() == 20
    nothing = MeasuredScans(np.empty((0, 3)), [], [])
    assert all(map(math.isnan, feature_distances(new, nothing)))
