"""Metrics of cases that can be counted by hand, and pseudo-values of subjects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from ssl_pipeline.evaluation.metrics.classification import (
    auroc,
    calibration_bins,
    calibration_error,
    score_classification,
)
from ssl_pipeline.evaluation.metrics.scores import mean_class_ratio
from ssl_pipeline.evaluation.metrics.segmentation import dice, score_segmentation
from ssl_pipeline.evaluation.metrics.surface import surface_metrics
from ssl_pipeline.evaluation.statistics.intervals import variance_components


def maps(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(1, 1, -1)


def test_dice_of_known_cases():
    assert dice(maps(1, 1, 0, 2), maps(1, 0, 0, 2), (True, True), 255) == [
        pytest.approx(2 / 3),
        1.0,
    ]
    assert dice(maps(0, 0, 0, 0), maps(1, 0, 0, 0), (True,), 255) == [0.0]
    assert dice(maps(1, 0, 0, 0), maps(0, 0, 0, 0), (True,), 255) == [0.0]


def test_dice_is_not_defined_where_nobody_shows_a_class_or_it_is_not_annotated():
    assert np.isnan(dice(maps(0, 0), maps(0, 0), (True,), 255)[0])
    assert np.isnan(dice(maps(1, 1), maps(0, 0), (False,), 255)[0])


def test_voxels_outside_of_the_label_do_not_count():
    assert dice(maps(1, 1, 1, 1), maps(1, 255, 255, 255), (True,), 255) == [1.0]


def test_balanced_accuracy_weighs_classes_alike():
    targets = np.array([0, 0, 0, 1])
    probability = np.eye(2)[[0, 0, 1, 1]]
    scored = score_classification(["a", "b"], ["a", "a", "b", "b"], targets, probability)
    assert scored.metrics["balanced_accuracy"].value == pytest.approx(5 / 6)
    assert scored.metrics["brier_score"].value == pytest.approx(0.5)
    assert scored.per_class.tolist() == pytest.approx([2 / 3, 1])
    assert next(iter(scored.metrics)) == "balanced_accuracy"


def test_auc_is_one_for_a_perfect_order_and_nan_for_one_class():
    probability = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    rows = np.arange(3)
    assert auroc(3, rows, np.array([0, 0, 1]), probability).value == 1
    assert np.isnan(auroc(3, rows, np.array([0, 0, 0]), probability).value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(4, 40), st.booleans())
def test_figures_are_those_of_scikit_learn(seed, classes, n, ties):
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), rng.integers(classes, size=n)])
    probability = rng.dirichlet(np.ones(classes), len(targets))
    if ties:
        probability = probability.round(1)
    of = [f"s{subject}" for subject in rng.integers(5, size=len(targets))]
    subjects = sorted(set(of))
    measures = score_classification(subjects, of, targets, probability).metrics
    right = balanced_accuracy_score(targets, probability.argmax(axis=1))
    assert measures["balanced_accuracy"].value == pytest.approx(right)
    areas = [roc_auc_score(targets == c, probability[:, c]) for c in range(classes)]
    assert measures["auc"].value == pytest.approx(np.mean(areas))


def delong(positive: np.ndarray, *scores: np.ndarray) -> np.ndarray:
    """Covariance of areas under the curve, straight from DeLong et al. 1988, by pairs."""
    pairs = np.stack([score[positive][:, None] - score[~positive][None] for score in scores])
    wins = (pairs > 0) + 0.5 * (pairs == 0)
    sides = (wins.mean(axis=2), wins.mean(axis=1))
    return sum(np.atleast_2d(np.cov(side)) / side.shape[1] for side in sides)


def test_the_error_of_an_area_is_delongs():
    rng = np.random.default_rng(0)
    targets = np.arange(80) % 2
    score = rng.normal(targets, 1).round(1)
    found = auroc(80, np.arange(80), targets, np.stack([-score, score], axis=1))
    variance, _ = variance_components(found.pseudovalues[None])
    assert variance == pytest.approx(delong(targets == 1, score).item(), rel=0.03)


def test_the_error_of_a_difference_of_paired_areas_is_delongs():
    rng = np.random.default_rng(0)
    targets = np.arange(80) % 2
    common = rng.normal(targets, 1)
    scores = [(common + rng.normal(size=80)).round(1), (common + rng.normal(size=80)).round(1)]
    own, other = (
        auroc(80, np.arange(80), targets, np.stack([-score, score], axis=1)).pseudovalues
        for score in scores
    )
    covariance = delong(targets == 1, *scores)
    assert covariance[0, 1] > 0.2 * covariance[0, 0], "they are paired"
    variance, _ = variance_components((own - other)[None])
    expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert variance == pytest.approx(expected, rel=0.03)


def test_a_pseudovalue_is_the_jackknifes():
    total, count = np.array([[1.0, 0], [2, 1], [0, 1]]), np.array([[2.0, 0], [2, 1], [1, 2]])
    found = mean_class_ratio(total, count)
    assert found.value == pytest.approx((3 / 5 + 2 / 3) / 2)
    without_first = ((2 + 0) / (2 + 1) + 2 / 3) / 2
    assert found.pseudovalues[0] == pytest.approx(3 * found.value - 2 * without_first)


def test_the_only_subject_of_a_class_has_a_pseudovalue():
    found = mean_class_ratio(np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert np.isfinite(found.pseudovalues).all()
    alone = mean_class_ratio(np.array([[1.0], [0.0]]), np.array([[2.0], [0.0]]))
    assert alone.value == 0.5 and np.isfinite(alone.pseudovalues).all()
    assert np.isnan(mean_class_ratio(np.zeros((2, 1)), np.zeros((2, 1))).value)


def test_dice_skips_what_is_not_defined():
    scores = np.array([[0.5, np.nan], [0.7, np.nan], [0.9, 0.2]])
    scored = score_segmentation(
        ["a", "b"], ["a", "a", "b"], {"mean_dice": scores, "other": scores[::-1]}
    )
    assert scored.metrics["mean_dice"].value == pytest.approx((0.7 + 0.2) / 2)
    assert scored.per_class.tolist() == pytest.approx([0.7, 0.2])


def test_calibration_error_is_confidence_above_accuracy():
    sure = np.full(100, 0.9)
    hit = np.arange(100) % 2 == 0
    assert calibration_error(hit, sure) == pytest.approx(0.4)
    assert calibration_error(np.ones(100, bool), np.ones(100)) == 0
    few = calibration_bins(np.array([True, False, True]), np.array([0.5, 0.6, 0.9]))
    assert few == [(0.5, 1, 1), (0.6, 0, 1), (0.9, 1, 1)]


def box(at, side=6, shape=(20, 20, 20)):
    drawn = np.zeros(shape, np.uint8)
    drawn[tuple(slice(start, start + side) for start in at)] = 1
    return drawn


def near(predicted, truth, annotated=(True,), spacing=(2.0, 1.0, 1.0), tolerance=2.0):
    (far,), (share,) = surface_metrics(
        predicted, truth, annotated, 255, spacing_mm=spacing, tolerance_mm=tolerance
    )
    return far, share


def test_distances_of_surfaces_are_in_millimetres():
    same, along_x, along_z = box((5, 5, 5)), box((5, 5, 8)), box((8, 5, 5))
    assert near(same, same) == (0, 1)
    assert near(along_x, same)[0] == pytest.approx(3)  # 3 voxels of 1 mm
    assert near(along_z, same)[0] == pytest.approx(6)  # 3 voxels of 2 mm
    assert near(along_x, same, tolerance=3.0)[1] == 1
    assert 0.5 < near(along_x, same, tolerance=1.0)[1] < 1


def test_surfaces_of_missing_classes_are_distinguished():
    nothing, there = np.zeros((20, 20, 20), np.uint8), box((5, 5, 5))
    assert np.isnan(near(nothing, nothing)).all()
    far, share = near(nothing, there)
    assert np.isnan(far) and share == 0
    assert np.isnan(near(there, there, annotated=(False,))).all()
    unknown = np.where(there == 1, 255, 0).astype(np.uint8)
    assert np.isnan(near(there, unknown)).all()  # what nobody knows is in no class
