"""Crops of real volumes: two views of a place show the same millimetres, however it is turned."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssl_pipeline.views.augmentation import augment
from ssl_pipeline.views.config import AffineAugmentation, IntensityAugmentation, LocalCrops, Views
from ssl_pipeline.views.crops import crop_views
from ssl_pipeline.views.patches import patch_centres_mm, patchify
from ssl_pipeline.views.sampler import Sampler

PATCH = (8, 4, 8)
VIEWS = Views(crop_voxels=(16, 16, 16))
LOW, HIGH = -1e9, 1e9


def blocks_of(catalog, reader, views, seed=3, step=0):
    return Sampler(catalog.entries, reader, views, PATCH, batch_size=4, seed=seed).batch(step)


def test_shared_voxels_of_two_views_are_the_same_voxels(catalog, reader):
    batch = crop_views(blocks_of(catalog, reader, VIEWS), VIEWS, PATCH)
    for pair in range(4):
        first, second = batch.clean[pair, 0], batch.clean[pair + 4, 0]
        offset = batch.start_mm[pair + 4] - batch.start_mm[pair]
        offset = torch.round(offset / batch.spacing_mm[pair]).int().tolist()
        mine = tuple(slice(max(o, 0), 16 + min(o, 0)) for o in offset)
        theirs = tuple(slice(max(-o, 0), 16 - max(o, 0)) for o in offset)
        assert torch.equal(first[mine], second[theirs])
        assert first[mine].numel() >= 0.3 * 16**3


@pytest.mark.parametrize("share", [0, 1], ids=["plain", "turned"])
def test_tokens_of_one_place_look_at_the_same_millimetres(catalog, reader, share):
    """Voxels that hold their own place in mm: what a token says of it must agree between views."""
    views = VIEWS.model_copy(
        update={"affine": AffineAugmentation(probability=share, rotation_deg=30, zoom=0.3)}
    )
    blocks = blocks_of(catalog, reader, views)
    size = blocks.voxels.shape[2:]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"))
    spacing = blocks.spacing_mm.numpy()
    seen = []
    for axis in range(3):
        voxels = torch.from_numpy(np.stack([index[axis], np.ones(size)]).astype(np.int16))
        units = torch.tensor([[s[axis], 0, LOW, HIGH] for s in spacing])
        known = dataclasses.replace(blocks, voxels=voxels.repeat(4, 1, 1, 1, 1), units=units)
        seen.append(crop_views(known, views, PATCH))
    batch = seen[0]
    inside = torch.stack([patchify(b.valid[:, None], PATCH).amin(-1) for b in seen]).amin(0) > 0
    truth = torch.stack([patchify(b.clean, PATCH).mean(-1) for b in seen], dim=-1)
    relative = patch_centres_mm((16, 16, 16), PATCH, batch.spacing_mm) + batch.start_mm[:, None]
    matrices = blocks.params.matrix / blocks.params.zoom[:, None, None]
    compared = 0
    for pair in range(4):
        # mm of the shared frame, turned about the block's middle, are mm of the volume
        frame = relative[[pair, pair + 4]].flatten(0, 1)
        there = truth[[pair, pair + 4]].flatten(0, 1)
        good = inside[[pair, pair + 4]].flatten()
        expected = (frame - frame.mean(0)) @ matrices[pair].T
        shift = (there - expected)[good]
        assert (shift - shift.mean(0)).abs().max() < 2e-3 * frame.abs().max()
        compared += int(good.sum())
    assert compared > 20
    turned = (matrices - torch.eye(3)).abs().amax((1, 2)) > 0.05
    assert turned.all() if share else not turned.any()


def test_seen_tokens_are_stored_voxels(catalog, reader):
    batch = crop_views(blocks_of(catalog, reader, VIEWS, step=1), VIEWS, PATCH)
    assert batch.visible.shape == (8, 4) and batch.hidden.shape == (8, 12)
    both = torch.cat([batch.visible, batch.hidden], 1).sort(1).values
    assert torch.equal(both, torch.arange(16).expand(8, 16))
    assert batch.valid_share.gather(1, batch.visible).min() >= 0.5


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_local_crops_are_boxes_about_hidden_patches_of_the_body(share, catalog, reader):
    local = LocalCrops(number=3, share=share)
    views = VIEWS.model_copy(update={"local_crops": local, "crop_voxels": (24, 32, 48)})
    batch = crop_views(blocks_of(catalog, reader, views), views, PATCH)
    grid, box = (3, 8, 6), local.box((3, 8, 6))
    assert batch.local.shape == (len(batch.visible), 3, math.prod(box))
    assert math.prod(box) / math.prod(grid) == pytest.approx(share, rel=0.4)
    for patches, hidden, body in zip(batch.local, batch.hidden, batch.body_share, strict=True):
        places = np.stack(np.unravel_index(patches.numpy(), grid), axis=-1)
        low, high = places.min(axis=1), places.max(axis=1)
        np.testing.assert_array_equal(high - low + 1, [box] * 3)
        assert all(len(set(own.tolist())) == math.prod(box) for own in patches)
        inside = [n for n in hidden.tolist() if body[n] >= 0.5][:3]
        assert all(middle in own for middle, own in zip(inside, patches.tolist(), strict=False))


def test_mirrored_views_are_mirrored_alike(catalog, reader):
    views = VIEWS.model_copy(update={"flip": ("x", "y", "z")})
    changed = 0
    for step in range(4):
        before = crop_views(blocks_of(catalog, reader, VIEWS, step=step), VIEWS, PATCH).clean
        after = crop_views(blocks_of(catalog, reader, views, step=step), views, PATCH).clean
        for pair in range(4):
            axes = [
                axes
                for axes in ([], [1], [2], [3], [1, 2], [1, 3], [2, 3], [1, 2, 3])
                if torch.equal(before[pair].flip(axes), after[pair])
                and torch.equal(before[pair + 4].flip(axes), after[pair + 4])
            ]
            assert axes
            changed += axes[0] != []
    assert changed


def test_what_a_turn_brings_in_from_outside_is_not_valid(catalog, reader):
    views = VIEWS.model_copy(
        update={"affine": AffineAugmentation(probability=1, rotation_deg=45, zoom=0.9)}
    )
    blocks = blocks_of(catalog, reader, views)
    whole = blocks.voxels.clone()
    whole[:, 1] = 3
    batch = crop_views(dataclasses.replace(blocks, voxels=whole), views, PATCH)
    low = blocks.units[:, 2].repeat(2)[:, None, None, None].expand_as(batch.valid)
    assert 0 < batch.valid.mean() < 1
    assert torch.equal(batch.clean[:, 0][batch.valid == 0], low[batch.valid == 0])


class HostTensors(TorchDispatchMode):
    """Keeps the shapes of tensors on the host that operations ask for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self.seen += [tensor.shape for tensor in tensors if tensor.device.type == "cpu"]
        return func(*args, **(kwargs or {}))


def test_a_device_is_sent_the_blocks_and_nothing_more(catalog, reader):
    """On the meta device, which has no generator for noise; a copy from the host would be seen."""
    intensity = IntensityAugmentation(
        noise_probability=0, blur_probability=0.5, window_probability=0.5, bias_probability=0.5
    )
    views = VIEWS.model_copy(
        update={"affine": AffineAugmentation(probability=0.5), "intensity": intensity}
    )
    blocks = blocks_of(catalog, reader, views)
    assert 0 < len(blocks.params.transformed_index) < 4
    assert 0 < len(blocks.params.blur_index) < 8
    there = blocks.to("meta")
    with HostTensors() as host:
        images = augment(crop_views(there, views, PATCH), there.params)
    assert images.device.type == "meta" and not host.seen
