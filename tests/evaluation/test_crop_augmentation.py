"""Labelled crops are turned, zoomed and mirrored together with their truth."""

import math
from dataclasses import replace

import pytest
import torch

from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL
from ssl_pipeline.evaluation.finetuning.augmentation_config import (
    UNCHANGED,
    CropAugmentation,
    ElasticAugmentation,
    FinetuneAffine,
)
from ssl_pipeline.evaluation.finetuning.crop_augmentation import (
    LabelledCrops,
    augment_crops,
    block_margin,
)
from ssl_pipeline.views.augmentation_params import SampleKey

SIZE = (16, 20, 12)
STILL, SAME = UNCHANGED.affine, UNCHANGED.intensity
TURNED = FinetuneAffine(probability=1, rotation_deg=40, zoom=0)
KEYS = [SampleKey(0, number) for number in range(4)]


def blocks(section, spacing=(1.0, 1.0, 1.0), seed=0):
    """A batch of smooth random blocks, whose truth is 1 where they are bright."""
    margin = block_margin(SIZE, section)
    shape = [side + 2 * more for side, more in zip(SIZE, margin, strict=True)]
    random = torch.rand(4, 1, *shape, generator=torch.Generator().manual_seed(seed))
    for _ in range(2):
        random = torch.nn.functional.avg_pool3d(random, 7, 1, 3, count_include_pad=False)
    images = 10 * (random[:, 0] - 0.5)
    truth = (images > 0).long()
    return LabelledCrops(images, torch.ones_like(images), truth, torch.tensor([spacing] * 4))


def augment(given, section, keys=KEYS):
    return augment_crops(given, SIZE, keys, section, IGNORE_LABEL)


def test_without_augmentation_a_crop_is_the_middle_of_its_block():
    section = UNCHANGED
    assert block_margin(SIZE, section) == (0, 0, 0)
    given = blocks(section)
    crops = augment(given, section)
    assert torch.allclose(crops.images, given.images, atol=1e-5)
    assert torch.equal(crops.truth, given.truth)


def test_truth_turns_with_the_image_and_no_corner_is_empty():
    section = CropAugmentation(affine=TURNED, intensity=SAME)
    given = blocks(section)
    crops = augment(given, section)
    clear = crops.images.abs() > 0.05  # linear and nearest differ at a boundary
    assert clear.float().mean() > 0.3
    assert ((crops.images > 0) == (crops.truth == 1))[clear].float().mean() > 0.99
    middle = given.truth[:, 9:-9, 9:-9, 9:-9]
    assert (crops.truth[:, : middle.shape[1], : middle.shape[2], : middle.shape[3]] != middle).any()
    assert (crops.truth == IGNORE_LABEL).float().mean() < 0.02


def test_truth_is_deformed_with_the_image_and_by_no_more_than_asked():
    elastic = ElasticAugmentation(probability=1, displacement=0.1)
    section = CropAugmentation(affine=STILL, elastic=elastic, intensity=SAME)
    margin = block_margin(SIZE, section)
    assert margin == (2, 2, 2)
    given = blocks(section)
    crops = augment(given, section)
    clear = crops.images.abs() > 0.05  # linear and nearest differ at a boundary
    assert ((crops.images > 0) == (crops.truth == 1))[clear].float().mean() > 0.99
    assert not (crops.truth == IGNORE_LABEL).any()
    ramps = torch.arange(given.images.shape[2]).float()[None, None, :, None]
    there = augment(replace(given, images=ramps.expand_as(given.images)), section).images
    moved = (there - there.new_tensor(range(SIZE[1]))[:, None] - margin[1]).abs()
    assert 0.5 < moved.max() <= 0.1 * SIZE[1] + 1e-4
    assert torch.equal(augment(given, section).truth, crops.truth)


def test_a_ball_stays_a_ball_where_slices_are_thick():
    spacing = (3.0, 1.0, 1.0)
    section = CropAugmentation(affine=TURNED, intensity=SAME)
    given = blocks(section, spacing)
    places = [torch.arange(n) - (n - 1) / 2 for n in given.truth.shape[1:]]
    z, y, x = torch.meshgrid(*places, indexing="ij")
    ball = ((3 * z) ** 2 + y**2 + x**2 <= 5**2).long()
    given = LabelledCrops(given.images, given.valid, ball.repeat(4, 1, 1, 1), given.spacing_mm)
    found = (augment(given, section).truth == 1).sum(dim=(1, 2, 3)).float()
    assert torch.allclose(found, ball.sum().float(), rtol=0.1)


@pytest.mark.parametrize(("axes", "mirrored"), [((), ()), (("x",), (3,)), (("z", "y"), (1, 2))])
def test_crops_are_mirrored_along_the_named_axes_alone(axes, mirrored):
    section = CropAugmentation(affine=STILL, flip=axes, intensity=SAME)
    given = blocks(section)
    crops = augment(given, section)
    views = [[axis for axis in mirrored if bits >> axis & 1] for bits in range(16)]
    possible = torch.stack([given.truth.flip(view) for view in views])
    assert (crops.truth == possible).flatten(2).all(dim=2).any(dim=0).all()
    assert torch.equal(crops.truth, given.truth) == (not axes)


def test_a_zoomed_crop_has_another_spacing_and_what_lies_outside_is_ignored():
    zoomed = FinetuneAffine(probability=1, rotation_deg=0, zoom=0.9)
    section = CropAugmentation(affine=zoomed, intensity=SAME)
    given = blocks(CropAugmentation(affine=STILL))  # too small for what comes in
    crops = augment(given, section)
    zoom = crops.spacing_mm[:, 0]
    assert len(set(zoom.tolist())) == 4
    for each, truth in zip(zoom.tolist(), crops.truth, strict=True):
        outside = (truth == IGNORE_LABEL).float().mean()
        expected = max(0, 1 - 1 / each**3)
        assert outside == pytest.approx(expected, abs=0.12)
        assert math.log2(each) <= 0.9


def test_a_crop_is_drawn_by_its_key_alone():
    section = CropAugmentation()
    given = blocks(section)
    together = augment(given, section)
    alone = augment(
        LabelledCrops(*(part[2:3] for part in vars(given).values())), section, KEYS[2:3]
    )
    assert torch.allclose(together.images[2], alone.images[0], atol=1e-5)
    assert torch.equal(together.truth[2], alone.truth[0])
    assert not torch.allclose(together.images[2], augment(given, section, KEYS[::-1]).images[2])
