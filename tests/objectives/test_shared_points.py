"""Points of both views are the same places of the scan, in maps of any resolution."""

import pytest
import torch
from torch.nn.functional import avg_pool3d

from ssl_pipeline.objectives.losses import match_accuracy
from ssl_pipeline.objectives.shared_points import sample_maps, shared_points
from ssl_pipeline.objectives.term_inputs import Crops
from ssl_pipeline.types import triple
from ssl_pipeline.views.config import AffineAugmentation, Views
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.views.patches import patch_centres_mm
from ssl_pipeline.views.sampler import Sampler

PATCH = (4, 8, 8)
VIEWS = Views(crop_voxels=(16, 16, 16), flip=("x",), affine=AffineAugmentation(probability=0.5))


@pytest.fixture(scope="module")
def crops(catalog, reader):
    """Real crops, half of them rotated and zoomed."""
    sampler = Sampler(catalog.entries, reader, VIEWS, PATCH, batch_size=8, seed=0)
    return Crops(crop_views(sampler.batch(0), VIEWS, PATCH), PATCH)


def places_map(crops, step):
    """A map that holds, in each cell of `step` voxels, where in the shared frame it lies."""
    batch = crops.batch
    middle = batch.start_mm + batch.spacing_mm * torch.tensor(crops.size) / 2
    places = patch_centres_mm(crops.size, step, batch.spacing_mm) + middle[:, None]
    grid = triple([side // part for side, part in zip(crops.size, step, strict=True)])
    return places.transpose(1, 2).unflatten(2, grid)


@pytest.mark.parametrize("step", [(1, 1, 1), (2, 2, 4), (4, 4, 4)], ids=str)
def test_both_views_show_the_same_place_at_a_point(crops, step):
    points = shared_points(crops, per_axis=3)
    margin = torch.tensor([part / side for part, side in zip(step, crops.size, strict=True)])
    inside = (points.places.abs() <= 1 - margin).all(-1)  # nearer the edge nothing is interpolated
    first, second = sample_maps([places_map(crops, step)], points.places).chunk(2)
    both = torch.logical_and(*inside.chunk(2))
    assert both.sum() > 50
    assert torch.allclose(first[both], second[both], atol=1e-3)


def test_maps_of_all_resolutions_are_joined(crops):
    fine = places_map(crops, (1, 1, 1))
    points = shared_points(crops, per_axis=2)
    joined = sample_maps([fine, avg_pool3d(fine, 4)], points.places)
    assert joined.shape == (16, 8, 6)
    assert torch.equal(joined[..., :3], sample_maps([fine], points.places))


def test_a_point_is_usable_where_both_views_show_the_body(crops):
    points = shared_points(crops, per_axis=3)
    patches = (points.places + 1) / 2 * torch.tensor([4, 2, 2])
    number = (patches.long() * torch.tensor([4, 2, 1])).sum(-1)
    batch = crops.batch
    shown = (batch.body_share >= 0.5) & (batch.valid_share >= 0.5)
    first, second = shown.gather(1, number).chunk(2)
    assert torch.equal(points.is_usable, first & second)
    assert points.is_usable.any()


def test_near_points_are_no_negatives(crops):
    points = shared_points(crops, per_axis=3)
    matches = points.matches(negative_patches=0.8)
    assert not matches.is_negative.diagonal(dim1=1, dim2=2).any()
    assert (points.distance[matches.is_negative] > 0.8).all()
    assert torch.equal(matches.positive_index[0], torch.arange(27))


def test_points_that_know_their_place_find_their_partner(crops):
    points = shared_points(crops, per_axis=3)
    matches = points.matches(negative_patches=0.1)
    own = torch.eye(27).expand(8, -1, -1)
    assert match_accuracy(own, own, matches) == 1
    assert match_accuracy(own, own.roll(1, dims=1), matches) < 0.1
