"""Spread of embeddings at known truths: collapsed, of few directions, even."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_pipeline.monitoring.collapse import (
    alignment,
    close_negative_share,
    dimension_std,
    embedding_drift,
    prototype_share,
    rankme,
    rankme_ceiling,
    target_entropy,
    uniformity,
)


def gaussian(rows, dim, seed=0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_zero_for_equal_two_for_unrelated_four_for_opposite():
    vectors = gaussian(4, 8)
    assert alignment(vectors, 3 * vectors) == pytest.approx(0, abs=1e-6)
    assert alignment(torch.eye(4), torch.eye(4).roll(1, 0)) == pytest.approx(2)
    assert alignment(vectors, -vectors) == pytest.approx(4)


@pytest.mark.parametrize(("dim", "ideal"), [(64, -3.88), (128, -3.94), (256, -3.97)])
def test_even_vectors_have_the_ideal_uniformity(dim, ideal):
    assert uniformity(gaussian(1000, dim)) == pytest.approx(ideal, abs=0.01)


def test_uniformity_in_closed_form():
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.eye(3)) == pytest.approx(-4)
    assert uniformity(torch.tensor([[1.0, 0], [-2, 0]])) == pytest.approx(-8)
    assert math.isnan(uniformity(torch.ones(1, 3)))


def test_spread_is_one_for_even_vectors_and_nothing_for_one_direction():
    assert dimension_std(gaussian(1000, 128)) == pytest.approx(1, abs=0.01)
    assert dimension_std(torch.ones(10, 128)) == pytest.approx(0, abs=1e-6)
    crowded = torch.ones(500, 128) + 0.1 * gaussian(500, 128)
    assert dimension_std(crowded) == pytest.approx(0.1, abs=0.01)


@given(rank=st.integers(1, 8), scale=st.floats(1e-3, 1e3))
def test_effective_rank_is_the_number_of_equal_directions_at_any_scale(rank, scale):
    directions = torch.linalg.qr(gaussian(16, rank)).Q.T
    assert rankme(scale * directions.repeat(3, 1)) == pytest.approx(rank, rel=1e-4)


def test_effective_rank_of_nothing_and_of_no_numbers():
    assert rankme(torch.zeros(4, 3)) == 0
    assert math.isnan(rankme(torch.tensor([[1.0, math.nan]])))


@pytest.mark.parametrize(
    ("places", "ceiling"), [(32, 31.6), (128, 121.9), (512, 336.4), (2048, 374.5)]
)
def test_the_ceiling_is_that_of_independent_gaussians(places, ceiling):
    assert rankme_ceiling(places, 384) == pytest.approx(ceiling, abs=0.1)
    assert rankme(gaussian(places, 384, seed=1)) == pytest.approx(ceiling, rel=0.005)


def test_close_negatives_are_pairs_of_different_subjects():
    vectors = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]])
    assert close_negative_share(vectors, torch.tensor([0, 0, 1, 1])) == 0
    assert close_negative_share(vectors, torch.tensor([0, 1, 0, 1])) == pytest.approx(1 / 2)
    assert close_negative_share(vectors, torch.arange(4)) == pytest.approx(1 / 3)
    assert math.isnan(close_negative_share(vectors, torch.zeros(4, dtype=torch.long)))


def test_drift_is_zero_for_a_frozen_encoder_and_the_relative_change_otherwise():
    before = gaussian(6, 5)
    assert embedding_drift(before, before.clone()) == 0
    assert embedding_drift(1.25 * before, before) == pytest.approx(0.25)
    assert math.isnan(embedding_drift(before, torch.zeros(6, 5)))


def test_a_teacher_that_says_nothing_or_always_the_same_is_recognized():
    uniform, same, own = torch.full((4, 8), 1 / 8), torch.eye(8)[[3] * 4], torch.eye(8)[:4]
    assert [target_entropy(rows) for rows in (uniform, same, own)] == pytest.approx([1, 0, 0])
    shares = [prototype_share(rows) for rows in (uniform, same, own)]
    assert shares == pytest.approx([1, 1 / 4, 1])  # of at most 4 that so few rows can use
