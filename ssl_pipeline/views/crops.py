"""Crops of the two views of samples, and their visible tokens: batched, on the samples' device.

Both views of a sample get the same rotation and zoom, about the centre of their blocks, so two
tokens at one location of that frame see the same millimetres. Samples without a transform are
cropped without interpolation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample

from ssl_pipeline.preprocess.prepare import ANONYMISED, FOREGROUND, VALID
from ssl_pipeline.types import Triple
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.local_crops import choose_local
from ssl_pipeline.views.masking import choose_visible
from ssl_pipeline.views.patches import patch_grid, patch_share
from ssl_pipeline.views.sample import SampleMeta


@dataclass(frozen=True)
class Batch:
    """Two views of each of B samples; tensors hold all first views, then all second ones."""

    clean: Float[Tensor, "views 1 z y x"]  # model input before augmentation
    valid: Float[Tensor, "views z y x"]  # 1 where a voxel was measured and not anonymised
    body_share: Float[Tensor, "views tokens"]  # fraction of a token's voxels inside the body
    valid_share: Float[Tensor, "views tokens"]  # fraction of a token's voxels that are valid
    visible: Int[Tensor, "views visible"]  # tokens that the encoder sees
    hidden: Int[Tensor, "views rest"]  # the others, in random order
    local: Int[Tensor, "views locals box"]  # patches of local crops
    spacing_mm: Float[Tensor, "views 3"]  # (z, y, x)
    start_mm: Float[Tensor, "views 3"]  # where a crop begins, in the frame that both views share
    meta: SampleMeta


def crop_views(samples: SampleBatch, views: Views, patch: Triple) -> Batch:
    """Crop the two views of every sample."""
    size = views.crop_voxels
    images, bits = _crops(samples, size)
    valid = _to_float(_has_bit(bits, VALID) & ~_has_bit(bits, ANONYMISED))
    measured, body = (
        patch_share(valid, patch),
        patch_share(_to_float(_has_bit(bits, FOREGROUND)), patch),
    )
    visible, hidden = choose_visible(
        measured,
        body,
        samples.params.order,
        count=int(views.visible_ratio * np.prod(patch_grid(size, patch))),
        max_background=views.max_background,
    )
    spacing = samples.spacing_mm[samples.block_index] * samples.params.zoom.repeat(2)[:, None]
    return Batch(
        clean=images[:, None],
        valid=valid,
        body_share=body,
        valid_share=measured,
        visible=visible,
        hidden=hidden,
        local=choose_local(hidden, body, patch_grid(size, patch), views.local_crops),
        spacing_mm=spacing,
        start_mm=samples.params.start * spacing + _block_offset_mm(samples, spacing),
        meta=samples.meta,
    )


def _block_offset_mm(samples: SampleBatch, spacing_mm: Tensor) -> Float[Tensor, "views 3"]:
    """Where a view's block begins in the frame of the first view's, whose centre it shares.

    Zero where both are one block.
    """
    size_mm = torch.stack([spacing_mm[:, i] * n for i, n in enumerate(samples.voxels.shape[2:])], 1)
    return (size_mm[: len(size_mm) // 2].repeat(2, 1) - size_mm) / 2


def _crops(samples: SampleBatch, size: Triple) -> tuple[Tensor, Tensor]:
    """Model input and mask bits (uint8) of all views, each (views, z, y, x)."""
    crops = zip(samples.host_block_index.tolist(), samples.params.host_start.tolist(), strict=True)
    voxels = torch.stack(
        [
            samples.voxels[block, :, z : z + size[0], y : y + size[1], x : x + size[2]]
            for block, (z, y, x) in crops
        ]
    )
    bits = voxels[:, 1].to(torch.uint8)
    images = _model_input(voxels[:, 0], bits, samples.units[samples.block_index])
    index = samples.params.transformed_index
    if len(index):
        both = torch.cat([index, index + len(voxels) // 2])
        images[both], bits[both] = _transform_crops(samples, both, size)
    return images, bits


def _has_bit(bits: Tensor, bit: int) -> Tensor:
    """Where a mask bit is set."""
    return (bits & bit).bool()


def _to_float(mask: Tensor) -> Tensor:
    """A mask as 0.0 and 1.0; via bytes, which a CPU converts in half the time."""
    return mask.view(torch.uint8).float()


def _model_input(
    stored: Int16[Tensor, "n z y x"], bits: UInt8[Tensor, "n z y x"], units: Float[Tensor, "n 4"]
) -> Float[Tensor, "n z y x"]:
    """Model input of stored intensities; invalid voxels have the lowest value."""
    factor, shift, low, high = units[:, :, None, None, None].unbind(dim=1)
    images = torch.addcmul(shift, stored.float(), factor)
    torch.clamp(images, low, high, out=images)
    return torch.lerp(low, images, _to_float(_has_bit(bits, VALID)))  # exact at 0 and at 1


def _transform_crops(
    samples: SampleBatch, views: Int[Tensor, " both"], size: Triple
) -> tuple[Tensor, Tensor]:
    """Resample views by their matrices: linear for intensities, nearest for mask bits."""
    blocks, params = samples.block_index[views], samples.params
    last = [n - 1 for n in samples.voxels.shape[2:]]
    axes = [
        torch.arange(n, device=views.device) - end / 2 for n, end in zip(size, last, strict=True)
    ]
    inside = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    spacing = samples.spacing_mm[blocks]
    matrix = params.matrix[params.transformed_index].repeat(2, 1, 1)
    # For each voxel of a view: mm from the centre of its block, transformed, in its voxels.
    mm = (params.start[views][:, None, None, None] + inside) * spacing[:, None, None, None]
    there = torch.einsum("vij,vzyxj->vzyxi", matrix, mm) / spacing[:, None, None, None]
    # (x, y, z), -1..1 between the centres of the outer voxels
    z, y, x = (2 * part / end for part, end in zip(there.unbind(-1), last, strict=True))
    grid = torch.stack([x, y, z], dim=-1)
    stored, bits = samples.voxels[blocks].unbind(dim=1)
    bits = bits.to(torch.uint8)
    grey = _model_input(stored, bits, samples.units[blocks])[:, None]
    kinds = bits[:, None].float()
    images = grid_sample(grey, grid, mode="bilinear", padding_mode="border", align_corners=True)
    kinds = grid_sample(kinds, grid, mode="nearest", padding_mode="zeros", align_corners=True)
    bits = kinds[:, 0].round().to(torch.uint8)
    low = samples.units[blocks, 2][:, None, None, None]
    return torch.where(_has_bit(bits, VALID), images[:, 0], low), bits
