"""Dice and recall of cases that can be counted by hand."""

import numpy as np
import pytest

from ssl_pipeline.evaluation.metrics import classification, dice, macro_auc, segmentation
from ssl_pipeline.evaluation.statistics import metric


def maps(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(1, 1, -1)


def test_dice_of_known_cases():
    assert dice(maps(1, 1, 0, 2), maps(1, 0, 0, 2), (True, True), 255) == [
        pytest.approx(2 / 3),
        1.0,
    ]
    assert dice(maps(0, 0, 0, 0), maps(1, 0, 0, 0), (True,), 255) == [0.0]
    assert dice(maps(1, 0, 0, 0), maps(0, 0, 0, 0), (True,), 255) == [0.0]


def test_dice_is_not_defined_where_nobody_shows_a_class_or_it_was_not_drawn():
    assert np.isnan(dice(maps(0, 0), maps(0, 0), (True,), 255)[0])
    assert np.isnan(dice(maps(1, 1), maps(0, 0), (False,), 255)[0])


def test_voxels_outside_of_the_label_do_not_count():
    assert dice(maps(1, 1, 1, 1), maps(1, 255, 255, 255), (True,), 255) == [1.0]


def test_balanced_accuracy_weighs_classes_alike():
    targets = np.array([0, 0, 0, 1])
    probability = np.eye(2)[[0, 0, 1, 1]]
    scored = classification(["a", "b"], ["a", "a", "b", "b"], targets, probability)
    assert metric(scored.total.sum(axis=0), scored.count.sum(axis=0)) == pytest.approx(5 / 6)
    assert scored.extras["accuracy"] == pytest.approx(0.75)
    assert scored.total.tolist() == [[2, 0], [0, 1]]


def test_auc_is_one_for_a_perfect_order_and_nan_for_one_class():
    probability = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert macro_auc(np.array([0, 0, 1]), probability) == 1
    assert np.isnan(macro_auc(np.array([0, 0, 0]), probability))


def test_dice_tables_skip_what_is_not_defined():
    scores = np.array([[0.5, np.nan], [0.7, np.nan], [0.9, 0.2]])
    scored = segmentation(["a", "b"], ["a", "a", "b"], scores)
    assert scored.total.tolist() == [[1.2, 0.0], [0.9, 0.2]]
    assert scored.count.tolist() == [[2, 0], [1, 1]]
