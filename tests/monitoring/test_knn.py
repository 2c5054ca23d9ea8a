"""Neighbours on planted classes, planted positions and noise; a subject never answers itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_pipeline.monitoring.knn import knn_accuracy, knn_r2, quantile_bins, same_subject_auc


def gaussian(rows, dim, seed=0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def test_planted_classes_are_found():
    label = torch.arange(120) % 4
    vectors = 5 * torch.eye(4)[label] + 0.1 * gaussian(120, 4)
    found = knn_accuracy(vectors, label, torch.arange(120))
    assert found.score == 1 and found.chance == 0.25


def test_noise_is_at_chance():
    label = torch.arange(600) % 3
    found = knn_accuracy(gaussian(600, 16), label, torch.arange(600))
    assert found.score == pytest.approx(found.chance, abs=0.07)


def test_collapsed_vectors_are_at_chance():
    label = torch.arange(40) % 4
    assert knn_accuracy(torch.ones(40, 8), label, torch.arange(40)).score <= 0.25 + 1e-6


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    label = torch.tensor([0] * 96 + [1] * 4)
    where = torch.tensor([0] * 96 + [0, 0, 1, 1])  # half of the rare class among the frequent one
    found = knn_accuracy(torch.eye(2)[where], label, torch.arange(100))
    assert found.score == pytest.approx((1 + 0.5) / 2)


def test_what_marks_the_subject_does_not_help():
    subject = torch.arange(60) // 2
    label = torch.randint(0, 2, (30,), generator=torch.Generator().manual_seed(0))[subject]
    vectors = 5 * gaussian(30, 16)[subject] + 0.01 * gaussian(60, 16, seed=1)
    leaky = knn_accuracy(vectors, label, torch.arange(60)).score
    honest = knn_accuracy(vectors, label, subject).score
    assert leaky > 0.95
    assert honest < 0.7


def test_a_class_of_one_subject_is_no_question():
    label = torch.tensor([0, 0, 2, 2, 1, 1])
    subject = torch.tensor([0, 1, 2, 3, 4, 4])
    found = knn_accuracy(5 * torch.eye(3)[label], label, subject)
    assert found.chance == 0.5 and found.score == 1


@pytest.mark.parametrize(
    ("label", "subject"), [([0, 0, 0], [0, 1, 2]), ([0, 1, 2], [0, 1, 2]), ([0], [0])]
)
def test_no_question_has_no_answer(label, subject):
    found = knn_accuracy(gaussian(len(label), 4), torch.tensor(label), torch.tensor(subject))
    assert math.isnan(found.score) and math.isnan(found.chance)


def test_planted_positions_are_explained_and_noise_is_not():
    angle = torch.linspace(0, 2 * math.pi, 200)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert knn_r2(circle, circle, torch.arange(200)) > 0.95
    assert knn_r2(gaussian(200, 8), circle, torch.arange(200)) < 0.1


def test_a_constant_target_is_left_out():
    angle = torch.linspace(0, 2 * math.pi, 200)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    with_constant = torch.cat([circle, torch.full((200, 1), 0.3)], dim=1)
    subject = torch.arange(200)
    assert knn_r2(circle, with_constant, subject) == pytest.approx(knn_r2(circle, circle, subject))
    assert math.isnan(knn_r2(circle, torch.full((200, 1), 0.3), subject))
    assert math.isnan(knn_r2(circle, circle, torch.zeros(200, dtype=torch.long)))


def test_places_of_a_subject_are_nearer_apart_or_neither():
    subject = torch.arange(40) // 2
    near = gaussian(20, 32)[subject] + 0.1 * gaussian(40, 32, seed=1)
    sign = torch.tensor([1.0, -1]).repeat(20)[:, None]
    assert same_subject_auc(near, subject).score > 0.99
    assert same_subject_auc(sign * near, subject).score < 0.01
    assert same_subject_auc(gaussian(40, 32), subject).score == pytest.approx(0.5, abs=0.1)
    assert same_subject_auc(torch.zeros(40, 32), subject).score == 0.5
    assert math.isnan(same_subject_auc(near, torch.arange(40)).score)


@given(
    values=st.lists(st.floats(0, 1), min_size=8, max_size=40, unique=True),
    bins=st.integers(2, 4),
)
def test_bins_are_equally_full_and_in_order(values, bins):
    values = torch.tensor(values, dtype=torch.float64)
    group = torch.zeros(len(values), dtype=torch.long)
    label = quantile_bins(values, group, bins)
    count = torch.bincount(label, minlength=bins)
    assert len(count) == bins and count.max() - count.min() <= 1
    assert (label[values.argsort()].diff() >= 0).all()


def test_every_group_has_bins_of_its_own():
    values = torch.tensor([0.1, 0.2, 0.8, 0.9])
    label = quantile_bins(values, torch.tensor([0, 0, 1, 1]), 2)
    assert label.tolist() == [0, 1, 0, 1]
    assert quantile_bins(torch.ones(4), torch.zeros(4, dtype=torch.long), 2).tolist() == [0] * 4
