"""Crops of the two views of samples, and their visible tokens: batched, on the samples' device.

Both views of a sample get the same rotation and zoom, about the centre of their block, so two
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
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.config import Triple, Views
from ssl_pipeline.views.patches import choose_visible, patch_grid, patch_share


@dataclass(frozen=True)
class Batch:
    """Two views of each of B samples; tensors hold all first views, then all second ones."""

    clean: Float[Tensor, "views 1 z y x"]  # model input before augmentation
    valid: Float[Tensor, "views z y x"]  # 1 where a voxel was measured and not anonymised
    body_share: Float[Tensor, "views tokens"]  # fraction of a token's voxels inside the body
    valid_share: Float[Tensor, "views tokens"]  # fraction of a token's voxels that are valid
    visible: Int[Tensor, "views visible"]  # tokens that the encoder sees
    hidden: Int[Tensor, "views rest"]  # the others, in random order
    spacing_mm: Float[Tensor, "views 3"]  # (z, y, x)
    start_mm: Float[Tensor, "views 3"]  # where a crop begins, in the frame that both views share
    subject: Int[Tensor, " samples"]  # equal numbers, equal subjects
    metadata_features: Float[Tensor, "samples features"]  # by which subjects are similar
    branch_factors: Float[Tensor, "views branches"] | None  # drop path, where the encoder has it


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
        samples.order,
        count=int(views.visible_ratio * np.prod(patch_grid(size, patch))),
        max_background=views.max_background,
    )
    spacing = samples.spacing_mm * samples.zoom[:, None]
    return Batch(
        clean=images[:, None],
        valid=valid,
        body_share=body,
        valid_share=measured,
        visible=visible,
        hidden=hidden,
        spacing_mm=spacing.repeat(2, 1),
        start_mm=samples.start * spacing.repeat(2, 1),
        subject=samples.subject,
        metadata_features=samples.metadata_features,
        branch_factors=samples.branch_factors,
    )


def _crops(samples: SampleBatch, size: Triple) -> tuple[Tensor, Tensor]:
    """Model input and mask bits (uint8) of all views, each (views, z, y, x)."""
    count = len(samples.voxels)
    voxels = torch.stack(
        [
            samples.voxels[view % count, :, z : z + size[0], y : y + size[1], x : x + size[2]]
            for view, (z, y, x) in enumerate(samples.host_start.tolist())
        ]
    )
    bits = voxels[:, 1].to(torch.uint8)
    images = _model_input(voxels[:, 0], bits, samples.units.repeat(2, 1))
    if len(samples.transformed_index):
        both = torch.cat([samples.transformed_index, samples.transformed_index + count])
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
    index, last = samples.transformed_index, [n - 1 for n in samples.voxels.shape[2:]]
    axes = [
        torch.arange(n, device=index.device) - end / 2 for n, end in zip(size, last, strict=True)
    ]
    inside = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    spacing, matrix = samples.spacing_mm[index].repeat(2, 1), samples.matrix[index].repeat(2, 1, 1)
    # For each voxel of a view: mm from the centre of its block, transformed, in its voxels.
    mm = (samples.start[views][:, None, None, None] + inside) * spacing[:, None, None, None]
    there = torch.einsum("vij,vzyxj->vzyxi", matrix, mm) / spacing[:, None, None, None]
    # (x, y, z), -1..1 between the centres of the outer voxels
    z, y, x = (2 * part / end for part, end in zip(there.unbind(-1), last, strict=True))
    grid = torch.stack([x, y, z], dim=-1)
    stored, bits = samples.voxels[index].unbind(dim=1)
    bits = bits.to(torch.uint8)
    grey = _model_input(stored, bits, samples.units[index])[:, None].repeat(2, 1, 1, 1, 1)
    kinds = bits[:, None].float().repeat(2, 1, 1, 1, 1)
    images = grid_sample(grey, grid, mode="bilinear", padding_mode="border", align_corners=True)
    kinds = grid_sample(kinds, grid, mode="nearest", padding_mode="zeros", align_corners=True)
    bits = kinds[:, 0].round().to(torch.uint8)
    low = samples.units[index, 2].repeat(2)[:, None, None, None]
    return torch.where(_has_bit(bits, VALID), images[:, 0], low), bits
