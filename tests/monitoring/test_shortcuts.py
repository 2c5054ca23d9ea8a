"""Shortcuts that are planted are found, and where there is none, none is."""

import math

import pytest
import torch

from ssl_pipeline.monitoring.shortcuts import (
    BINS,
    PositionShortcut,
    intensity_histograms,
    measure_position_shortcut,
    retrieval_accuracy,
    site_accuracy,
)
from ssl_pipeline.objectives.losses import local_contrast_loss, match_tokens


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_histogram_counts_valid_voxels_in_bins():
    images, valid = torch.zeros(2, 1, 2, 2, 2), torch.ones(2, 2, 2, 2)
    images[0, 0, 0] = 99.0  # beyond the range: in the last bin
    images[1, 0, 0] = -99.0
    valid[1, 0] = 0
    found = intensity_histograms(images, valid).square()
    assert found[0, BINS // 2] == pytest.approx(0.5) and found[0, -1] == pytest.approx(0.5)
    assert found[1, BINS // 2] == pytest.approx(1) and found[1].sum() == pytest.approx(1)
    assert intensity_histograms(images, torch.zeros_like(valid)).sum() == 0


def test_grey_values_that_mark_a_place_are_a_shortcut_and_shuffled_ones_are_not():
    level = torch.linspace(-2, 2, 32)[:, None, None, None, None]
    first = level + 0.05 * gaussian(32, 1, 4, 4, 4)
    second = level + 0.05 * gaussian(32, 1, 4, 4, 4, seed=1)
    valid = torch.ones(32, 4, 4, 4)
    marked = retrieval_accuracy(
        intensity_histograms(first, valid), intensity_histograms(second, valid)
    )
    assert marked.score > 0.9 and marked.chance == 1 / 32
    shifted = second.roll(1, 0)
    assert (
        retrieval_accuracy(
            intensity_histograms(first, valid), intensity_histograms(shifted, valid)
        ).score
        < 0.1
    )


def test_perfect_embeddings_find_all_and_collapsed_ones_score_chance():
    vectors = gaussian(16, 8)
    assert retrieval_accuracy(vectors, 2 * vectors).score == 1
    assert retrieval_accuracy(torch.ones(16, 8), torch.ones(16, 8)).score == pytest.approx(1 / 16)
    assert retrieval_accuracy(vectors, vectors.roll(1, 0)).score == 0


def four_places():
    apart = torch.full((4, 4), 5.0)
    apart.fill_diagonal_(0)
    return apart[None]


DIALS = {"positive": 1.5, "negative": 2.0}


def local_loss(encode):
    """The loss between four places, each a voxel of a crop, under an encoder of (value, place)."""

    def loss(images):
        first, second = images.flatten(1).chunk(2)
        found = match_tokens(four_places().expand(len(first), 4, 4), **DIALS)
        return (
            local_contrast_loss(encode(first), encode(second), found, 0.1) / found.is_usable.sum()
        )

    return loss


def by_position(values):
    return torch.eye(4).expand(len(values), 4, 4)


def by_content(values):
    return torch.stack([torch.cos(values), torch.sin(values)], dim=2)


def test_an_encoder_of_positions_alone_is_found_out():
    images = torch.tensor([0.0, 1.5, 3.0, 4.5]).reshape(1, 1, 4, 1, 1).expand(4, 1, 4, 1, 1)
    planted = measure_position_shortcut(local_loss(by_position), images, math.log(4))
    assert planted.real < 0.01
    assert planted.empty_share == pytest.approx(1) and planted.swapped_share == pytest.approx(1)


def test_an_encoder_of_content_needs_its_content():
    two = torch.tensor([[0.0, 1.5, 3.0, 4.5], [3.0, 4.5, 0.0, 1.5]])
    images = two.repeat(2, 1).reshape(4, 1, 4, 1, 1)
    sound = measure_position_shortcut(local_loss(by_content), images, math.log(4))
    assert sound.real < 0.1
    assert sound.empty == pytest.approx(math.log(4), abs=1e-5)
    assert sound.empty_share == pytest.approx(0, abs=1e-5)
    assert sound.swapped > math.log(4) and sound.swapped_share < 0


def test_a_loss_that_has_learned_nothing_leaves_nothing_to_explain():
    idle = PositionShortcut(real=1.35, empty=1.0, swapped=1.0, chance=1.386)
    assert math.isnan(idle.empty_share) and math.isnan(idle.swapped_share)
    half = PositionShortcut(real=0.386, empty=0.886, swapped=1.136, chance=1.386)
    assert half.empty_share == pytest.approx(0.5) and half.swapped_share == pytest.approx(0.25)


def test_a_scanner_that_only_embeddings_know_is_unknown_to_histograms():
    site, subject = torch.arange(60) % 2, torch.arange(60)
    noise, marked = gaussian(60, 8), 5 * torch.eye(2)[site] + 0.1 * gaussian(60, 2)
    planted = site_accuracy(marked, noise, site, subject)
    assert planted.embedding == 1 and planted.chance == 0.5
    assert planted.histogram < 0.75
    same = site_accuracy(marked, marked, site, subject)
    assert same.embedding == same.histogram
    assert math.isnan(site_accuracy(marked, noise, torch.zeros_like(site), subject).embedding)
