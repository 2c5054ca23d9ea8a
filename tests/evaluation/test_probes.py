"""Contract of every probe, on features whose classes are known."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, r2_score

from ssl_pipeline.evaluation.baselines.pixels_pca import block_means, pixel_features
from ssl_pipeline.evaluation.probes import ProbeMethod
from ssl_pipeline.evaluation.probes.folds import choose_candidate, has_folds, subject_folds
from ssl_pipeline.evaluation.probes.linear import Linear
from ssl_pipeline.evaluation.probes.predictor import LabelledFeatures
from ssl_pipeline.evaluation.probes.sweep import Sweep

METHODS = [method() for method in get_args(get_args(ProbeMethod)[0])]


def separated(n: int, seed: int) -> LabelledFeatures:
    """Three classes that lie apart."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    features = rng.normal(0, 0.1, (n, 8)) + np.eye(8)[targets] + 100
    return LabelledFeatures(features.astype(np.float32)[:, None], targets, np.arange(n) // 3, 3)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
class TestEveryMethod:
    def test_separated_classes_are_predicted(self, method):
        test = separated(12, 1)
        probability = method.fit(separated(30, 0), 0)(test.features)
        assert probability.shape == (12, 3)
        assert np.allclose(probability.sum(axis=1), 1)
        assert (probability.argmax(axis=1) == test.targets).all()

    def test_two_subjects_are_enough_to_learn_from(self, method):
        test = separated(12, 1)
        probability = method.fit(separated(6, 0), 0)(test.features)
        assert (probability.argmax(axis=1) == test.targets).all()

    def test_a_class_without_a_label_gets_no_probability(self, method):
        known, test = separated(30, 0), separated(12, 1)
        for kept in (known.targets < 2, known.targets < 1):
            probability = method.fit(known.select(kept), 0)(test.features)
            assert (probability[:, 2] == 0).all()

    def test_numbers_are_predicted_where_there_are_no_classes(self, method):
        rng = np.random.default_rng(0)
        numbers = rng.uniform(20, 80, 80)
        features = np.stack([numbers / 30, rng.normal(0, 0.1, 80)], axis=1).astype(np.float32)
        known = LabelledFeatures(features[:60, None], numbers[:60], np.arange(60) // 2, 0)
        predicted = method.fit(known, 0)(features[60:, None])
        assert predicted.shape == (20, 1)
        assert r2_score(numbers[60:], predicted[:, 0]) > 0.7

    def test_the_same_twice(self, method):
        known = separated(30, 0)
        first, second = (method.fit(known, 0)(known.features) for _ in range(2))
        assert (first == second).all()


def test_the_sweep_reads_earlier_blocks_where_they_say_more():
    rng = np.random.default_rng(2)
    known, test = (
        replace(each, features=np.concatenate([noise.astype(np.float32), each.features], axis=1))
        for each in (separated(60, 0), separated(12, 1))
        for noise in [rng.normal(0, 1, each.features.shape)]
    )
    fitted = Sweep(last_blocks=(1, 2)).fit(known, 0)
    assert (fitted(test.features).argmax(axis=1) == test.targets).all()
    blind = Sweep(last_blocks=(1,)).fit(known, 0)
    assert (blind(test.features).argmax(axis=1) == test.targets).mean() < 0.9


def noisy(n: int, seed: int) -> LabelledFeatures:
    """Two classes that differ a little along weak components, as those of pixels do."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.arange(1, 49) ** 0.75
    targets = rng.integers(2, size=n)
    shift = np.random.default_rng(1).normal(0, 1, 48) * spread * (np.arange(48) >= 8) * 0.4
    features = rng.normal(0, 1, (n, 48)) * spread + targets[:, None] * shift
    return LabelledFeatures(features.astype(np.float32)[:, None], targets, np.arange(n), 2)


def test_the_chosen_strength_is_near_the_best_one_for_few_subjects():
    test = noisy(2000, 99)

    def accuracy(method, seed):
        predicted = method.fit(noisy(61, seed), 0)(test.features).argmax(axis=1)
        return balanced_accuracy_score(test.targets, predicted)

    lost = []
    for seed in range(4):
        best = max(accuracy(Linear(c_values=(c,)), seed) for c in Linear().c_values)
        lost.append(best - accuracy(Linear(), seed))
    assert np.mean(lost) < 0.02 and max(lost) < 0.05


def test_of_equally_good_candidates_the_least_regularised_is_chosen():
    known = separated(36, 0)
    perfect = [Linear(c_values=(c,)) for c in (0.1, 1.0)]
    poor = Linear(c_values=(1e-9,))
    candidates = [poor, *perfect]
    assert choose_candidate(lambda part: [c.fit(part, 0) for c in candidates], known, 2) == 2


def test_folds_are_drawn_anew_by_subject_and_stratified():
    rng = np.random.default_rng(0)
    targets, subjects = rng.permutation(np.arange(40) % 4 == 0).astype(int), np.arange(40)
    folds = subject_folds(targets, subjects, 2, 3)
    assert len(folds) == 12
    assert len({tuple(held) for _, held in folds}) == 12
    assert {targets[held].sum() for _, held in folds} <= {2, 3}
    pairs = subject_folds(np.linspace(0, 1, 40), subjects // 2, 0, 3)
    assert all(set(subjects[kept] // 2).isdisjoint(subjects[held] // 2) for kept, held in pairs)
    assert subject_folds(targets[:3], subjects[:3], 2, 3) == []
    assert has_folds(targets, subjects, 2, 3) and not has_folds(targets[:3], subjects[:3], 2, 3)
    assert not has_folds(np.zeros(40, int), subjects, 2, 3)


def test_heads_of_a_sweep_do_not_see_each_other():
    known = separated(6, 0)  # fewer subjects than folds
    many, one = (
        Sweep(learning_rates=rates).fit(known, 0)(known.features)
        for rates in ((1e-5, 0.01, 10.0), (0.01,))
    )
    assert np.allclose(many, one)


def test_blocks_are_means_also_where_the_side_is_no_multiple():
    image = np.arange(40, dtype=np.float32)[None, :, None, None] * np.ones(
        (1, 40, 8, 8), np.float32
    )
    coarse = block_means(image).reshape(1, 14, 8, 8)
    assert coarse[0, 0, 0, 0] == pytest.approx(1.0)
    assert coarse[0, -1, 0, 0] == pytest.approx(39.0)


def test_components_see_the_training_crops_alone():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(12, 8, 8, 8)).astype(np.float32)
    fitted_on = np.arange(12) < 8
    features = pixel_features([images[:5], images[5:]], fitted_on, 0)
    assert features.shape == (12, 7)
    other = images.copy()
    other[8:] *= 3
    assert np.allclose(pixel_features([other], fitted_on, 0)[:8], features[:8], atol=1e-4)
