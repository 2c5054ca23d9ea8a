"""Probes on features whose classes are known."""

from typing import get_args

import numpy as np
import pytest
from sklearn.metrics import r2_score

from ssl_pipeline.evaluation.probes import ProbeMethod
from ssl_pipeline.evaluation.probes.pixels_pca import baseline, blocks
from ssl_pipeline.evaluation.probes.sweep import Sweep

METHODS = [method() for method in get_args(get_args(ProbeMethod)[0])]


def separated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of three classes that lie apart, with the subjects that show them."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    features = rng.normal(0, 0.1, (n, 8)) + np.eye(8)[targets] + 100
    return features.astype(np.float32)[:, None], targets, np.arange(n) // 3


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
class TestEveryMethod:
    def test_classes_that_lie_apart_are_told_apart(self, method):
        train, targets, subjects = separated(30, 0)
        test, truth, _ = separated(12, 1)
        probability = method.fit(train, targets, subjects, 3, 0)(test)
        assert probability.shape == (12, 3)
        assert np.allclose(probability.sum(axis=1), 1)
        assert (probability.argmax(axis=1) == truth).all()

    def test_two_subjects_are_enough_to_learn_from(self, method):
        train, targets, subjects = separated(6, 0)
        test, truth, _ = separated(12, 1)
        assert (method.fit(train, targets, subjects, 3, 0)(test).argmax(axis=1) == truth).all()

    def test_a_class_without_a_label_gets_no_probability(self, method):
        train, targets, subjects = separated(30, 0)
        test, _, _ = separated(12, 1)
        for kept in (targets < 2, targets < 1):
            probability = method.fit(train[kept], targets[kept], subjects[kept], 3, 0)(test)
            assert (probability[:, 2] == 0).all()

    def test_numbers_are_told_where_there_are_no_classes(self, method):
        rng = np.random.default_rng(0)
        numbers = rng.uniform(20, 80, 80)
        features = np.stack([numbers / 30, rng.normal(0, 0.1, 80)], axis=1).astype(np.float32)
        fitted = method.fit(features[:60, None], numbers[:60], np.arange(60) // 2, 0, 0)
        told = fitted(features[60:, None])
        assert told.shape == (20, 1)
        assert r2_score(numbers[60:], told[:, 0]) > 0.7

    def test_the_same_twice(self, method):
        train, targets, subjects = separated(30, 0)
        first, second = (method.fit(train, targets, subjects, 3, 0)(train) for _ in range(2))
        assert (first == second).all()


def test_the_sweep_reads_earlier_blocks_where_they_say_more():
    train, targets, subjects = separated(60, 0)
    test, truth, _ = separated(12, 1)
    noise = np.random.default_rng(2).normal(0, 1, (72, 1, 8)).astype(np.float32)
    train, test = (np.concatenate(pair, 1) for pair in ((noise[:60], train), (noise[60:], test)))
    fitted = Sweep(blocks=(1, 2)).fit(train, targets, subjects, 3, 0)
    assert (fitted(test).argmax(axis=1) == truth).all()
    blind = Sweep(blocks=(1,)).fit(train, targets, subjects, 3, 0)
    assert (blind(test).argmax(axis=1) == truth).mean() < 0.9


def test_heads_of_a_sweep_do_not_see_each_other():
    train, targets, subjects = separated(6, 0)  # fewer subjects than folds
    many, one = (
        Sweep(rates=rates).fit(train, targets, subjects, 3, 0)(train)
        for rates in ((1e-5, 0.01, 10.0), (0.01,))
    )
    assert np.allclose(many, one)


def test_blocks_are_means_also_where_the_side_is_no_multiple():
    image = np.arange(40, dtype=np.float32)[None, :, None, None] * np.ones(
        (1, 40, 8, 8), np.float32
    )
    coarse = blocks(image).reshape(1, 14, 8, 8)
    assert coarse[0, 0, 0, 0] == pytest.approx(1.0)
    assert coarse[0, -1, 0, 0] == pytest.approx(39.0)


def test_components_see_the_training_crops_alone():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 8, 8, 8)).astype(np.float32)
    fitted_on = np.arange(12) < 8
    features = baseline([images[:5], images[5:]], fitted_on, 0)
    assert features.shape == (12, 7)
    other = images.copy()
    other[8:] *= 3
    assert np.allclose(baseline([other], fitted_on, 0)[:8], features[:8], atol=1e-4)
