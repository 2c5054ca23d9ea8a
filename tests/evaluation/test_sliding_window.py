"""Sliding-window inference covers every voxel and returns the prediction in place."""

import numpy as np
import pytest
import torch

from ssl_pipeline.evaluation.finetuning.sliding_window import (
    WindowSettings,
    gaussian_weights,
    sliding_window_inference,
    window_starts,
)


@pytest.mark.parametrize(("size", "window"), [(40, 16), (16, 16), (17, 16), (7, 16), (100, 24)])
def test_windows_cover_an_axis(size, window):
    covered = np.zeros(size, bool)
    for start in window_starts(size, window, 0.5):
        covered[max(0, start) : start + window] = True
    assert covered.all()


@pytest.mark.parametrize("shape", [(40, 33, 21), (9, 30, 8), (16, 16, 16)])
def test_a_network_that_knows_the_truth_gives_it_back(shape):
    truth = np.random.default_rng(0).integers(0, 3, shape)
    window = (16, 16, 16)

    def oracle(places):
        padded = np.pad(truth, 16)
        cut = [padded[z + 16 : z + 32, y + 16 : y + 32, x + 16 : x + 32] for z, y, x in places]
        return (
            torch.nn.functional.one_hot(torch.from_numpy(np.stack(cut)), 3).movedim(-1, 1).float()
        )

    slabs = list(sliding_window_inference(shape, WindowSettings(window, 0.5, 3), oracle))
    ends = [slab.first + slab.values.shape[1] for slab in slabs]
    assert [slab.first for slab in slabs] == [0, *ends[:-1]]  # one after the other
    found = np.concatenate([slab.values for slab in slabs], axis=1)
    assert found.shape == (3, *shape)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)
    assert (found.argmax(axis=0) == truth).all()


def test_no_more_planes_are_held_than_a_window_has_however_long_a_scan_is():
    window, asked = (16, 16, 16), []

    def even(places):
        asked.extend(z for z, _, _ in places)
        return torch.full((len(places), 2, *window), 0.5)

    settings, planes = WindowSettings(window, 0.5, 4), 0
    for slab in sliding_window_inference((200, 20, 20), settings, even):
        planes += slab.values.shape[1]
        assert slab.values.shape[1] <= 16
        assert max(asked) == slab.first, "windows below are not computed before these are taken"
    assert planes == 200


def test_votes_weigh_most_in_the_middle_and_never_nothing():
    weight = gaussian_weights((8, 10, 12))
    assert weight.shape == (8, 10, 12)
    assert weight.min() > 0
    assert weight[4, 5, 6] == weight.max()
