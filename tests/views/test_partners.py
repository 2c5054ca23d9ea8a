"""Partners: two sequences of planted visits, on two grids, cut about the same millimetres."""

from functools import partial

import numpy as np
import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.objectives.term_inputs import Crops
from ssl_pipeline.objectives.terms.dense_contrast import DenseContrast
from ssl_pipeline.objectives.terms.local_contrast import LocalContrast
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.views.pairing import check_partners
from ssl_pipeline.volumes.volume import Volume
from tests.views.partner_scans import FRAME, PATCH, VIEWS, partner_sampler, sequences
from tests.volumes.volume_writers import rotated_affine

TURNED = rotated_affine((0, 0, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
SHIFT = np.array([[1.0, 0, 0, 7], [0, 1, 0, -5], [0, 0, 1, 3], [0, 0, 0, 1]])


@pytest.fixture
def sampler_of(tmp_path):
    return partial(partner_sampler, tmp_path)


def centres_mm(sampler, samples):
    """The middle of each crop (samples, 2, 3) in RAS+ mm of its own header."""
    found = []
    for indices, fractions in zip(samples.meta.entry_index, samples.meta.centre, strict=True):
        entries = [sampler.entries[index] for index in indices]
        voxels = [f * entry.shape - 0.5 for f, entry in zip(fractions, entries, strict=True)]
        affines = [np.array(entry.meta.affine) for entry in entries]
        found.append([(a @ [*v[::-1], 1.0])[:3] for a, v in zip(affines, voxels, strict=True)])
    return np.array(found)


def apart_of_crops(batch):
    """How far second crops lie from first ones in the frame of the batch, (x, y, z) in mm."""
    middle = batch.start_mm + batch.spacing_mm * 12 / 2
    first, second = middle.chunk(2)
    return (second - first).numpy()[:, ::-1]


def test_views_of_one_frame_lie_about_the_same_millimetres(sampler_of):
    head, other = sequences()
    sampler = sampler_of((head, FRAME), (other, FRAME))
    shared = 0
    for step in range(6):
        samples = sampler.batch(step)
        assert (samples.meta.entry_index[:, 0] != samples.meta.entry_index[:, 1]).all()
        batch = crop_views(samples, VIEWS, PATCH)
        true = np.diff(centres_mm(sampler, samples), axis=1)[:, 0]
        which = samples.meta.shares_place.numpy()
        half_voxels = np.abs(apart_of_crops(batch) - true)[which]
        assert (half_voxels <= [1.01, 1.01, 2.01]).all()
        shared += which.sum()
    assert shared >= 12


def test_patches_of_two_spacings_lie_where_their_scans_show_them(sampler_of):
    head, other = sequences()
    sampler = sampler_of((head, FRAME), (other, FRAME))
    samples = sampler.batch(0)
    which = samples.meta.shares_place.numpy()
    batch = crop_views(samples, VIEWS, PATCH)
    assert (batch.spacing_mm[:4, 0] != batch.spacing_mm[4:, 0]).all() and which.any()
    first, second = Crops(batch, PATCH).places_mm().mean(1).chunk(2)
    true = np.diff(centres_mm(sampler, samples), axis=1)[:, 0]
    error = np.abs((second - first).numpy()[:, ::-1] - true)[which]
    assert (error <= [1.01, 1.01, 2.01]).all()


def test_tokens_of_two_spacings_match_within_the_limit_in_mm(sampler_of):
    head, other = sequences()
    crops = Crops(
        crop_views(sampler_of((head, FRAME), (other, FRAME)).batch(0), VIEWS, PATCH), PATCH
    )
    places = crops.places_mm().gather(1, crops.batch.visible[..., None].expand(-1, -1, 3))
    first, second = places.chunk(2)
    apart = ((first[:, :, None] - second[:, None]).abs() / crops.patch_mm()[:, None, None]).amax(-1)
    near = (apart <= 1.5).any(2) & (apart > 2).any(2) & crops.batch.meta.shares_place[:, None]
    back = (apart <= 1.5).any(1) & (apart > 2).any(1) & crops.batch.meta.shares_place[:, None]
    assert LocalContrast().count(crops) == near.sum() + back.sum() > 0


def test_a_transform_of_the_inventory_is_applied_when_a_place_is_looked_up(sampler_of):
    head, other = sequences()
    moved = Volume(other.data, np.linalg.inv(SHIFT) @ other.affine)
    sampler = sampler_of((head, FRAME), (moved, FRAME | {"to_frame": SHIFT.tolist()}))
    samples = sampler.batch(0)
    which = samples.meta.shares_place.numpy()
    assert which.any()
    places = centres_mm(sampler, samples)
    places[samples.meta.entry_index == 1] += SHIFT[:3, 3]
    true = np.diff(places, axis=1)[:, 0]
    batch = crop_views(samples, VIEWS, PATCH)
    assert (np.abs(apart_of_crops(batch) - true)[which] <= [1.01, 1.01, 2.01]).all()


def usable_tokens(sampler):
    batch = crop_views(sampler.batch(0), VIEWS, PATCH)
    crops = Crops(batch, PATCH)
    return [term.count(crops).item() for term in (LocalContrast(), DenseContrast())]


@pytest.mark.parametrize(
    ("change", "is_shared"),
    [({}, True), ({"frame": ""}, False), ({"frame": "g"}, False),
     ({"to_frame": TURNED.tolist()}, False)],
    ids=["one frame", "no frame", "another frame", "turned"],
)  # fmt: skip
def test_tokens_pair_in_one_frame_alone(change, is_shared, sampler_of):
    head, other = sequences()
    sampler = sampler_of((head, FRAME), (other, FRAME | change))
    assert sampler.batch(0).meta.shares_place.any() == is_shared
    assert [count > 0 for count in usable_tokens(sampler)] == [is_shared, is_shared]


def test_a_visit_with_one_scan_uses_that_scan(sampler_of):
    head, other = sequences()
    sampler = sampler_of((head, FRAME), (other, {"visit": "w", "frame": "f"}))
    alone = sampler_of((head, {}), (other, {}), views=VIEWS.model_copy(update={"partner": "scan"}))
    first, second = sampler.batch(0), alone.batch(0)
    assert torch.equal(first.voxels, second.voxels)
    assert first.meta.shares_place.all()


def test_partners_are_drawn_from_all_other_scans_of_the_visit(sampler_of):
    head, other = sequences()
    noisy = [Volume(other.data + number, other.affine) for number in range(2)]
    sampler = sampler_of((head, FRAME), *((volume, FRAME) for volume in noisy))
    pairs = np.concatenate([sampler.batch(step).meta.entry_index for step in range(12)])
    assert len({tuple(pair) for pair in pairs}) == 6


def test_a_resumed_run_draws_the_same_partners(sampler_of):
    head, other = sequences()
    sampler = sampler_of((head, FRAME), (other, FRAME))
    assert torch.equal(sampler.batch(3).voxels, sampler.batch(3).voxels)


def test_partners_without_any_visit_are_refused_in_one_sentence(sampler_of):
    head, other = sequences()
    sampler = sampler_of((head, FRAME), (other, {"visit": "w"}))
    with pytest.raises(UserError, match=r"views\.partner is visit, and no visit has two scans"):
        check_partners(sampler.entries, "visit")
    check_partners(sampler.entries, "scan")
