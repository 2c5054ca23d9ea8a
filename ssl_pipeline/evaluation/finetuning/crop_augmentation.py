"""Augmentation of labelled crops on the training device: rotation, zoom, deformation, intensities.

Random numbers are drawn on the host by counter, as those of pretraining; the work is batched. Crops
are cut out of larger blocks, so that a rotated crop has corners.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from ssl_pipeline.evaluation.finetuning.augmentation_config import CropAugmentation
from ssl_pipeline.types import Triple
from ssl_pipeline.views.augmentation import augment_intensities
from ssl_pipeline.views.augmentation_params import (
    SampleKey,
    draw_affine,
    draw_bias_field,
    draw_intensity_params,
)
from ssl_pipeline.views.collate import collate_intensity_params
from ssl_pipeline.views.rng import rng_key

CONTROL_POINTS = (4, 4, 4)  # of a deformation, over a crop


@dataclass(frozen=True)
class LabelledCrops:
    """A batch of crops with their truth."""

    images: Float[Tensor, "batch z y x"]  # model input
    valid: Float[Tensor, "batch z y x"]  # 1 where a voxel was stored
    truth: Int[Tensor, "batch z y x"]  # class indices
    spacing_mm: Float[Tensor, "batch 3"]  # (z, y, x)


def block_margin(size: Triple, section: CropAugmentation) -> Triple:
    """Voxels around a crop of `size` that rotation, zoom and deformation may bring into it."""
    affine, elastic = section.affine, section.elastic
    turned = 2**affine.zoom * (1 + math.sin(math.radians(min(90, affine.rotation_deg)))) - 1
    growth = (turned if affine.probability else 0) / 2
    growth += elastic.displacement if elastic.probability else 0
    z, y, x = (math.ceil(side * growth) for side in size)
    return z, y, x


def augment_crops(
    blocks: LabelledCrops,
    size: Triple,
    keys: Sequence[SampleKey],
    section: CropAugmentation,
    ignore_index: int,
) -> LabelledCrops:
    """Random crops of `size` from the middle of blocks, drawn by a key each.

    What lies outside of a block has the truth `ignore_index`.
    """
    zooms, matrices = zip(*(_draw_transform(key, section) for key in keys), strict=True)
    matrix = torch.from_numpy(np.stack(matrices)).to(blocks.images.device)
    crops = _transform(blocks, size, matrix, _displacements(keys, size, section), ignore_index)
    params = collate_intensity_params(
        np.stack([draw_intensity_params(key, section.intensity, 0) for key in keys]),
        np.stack([draw_bias_field(key, section.intensity, 0) for key in keys]),
        np.array([rng_key(key.seed, key.number, "noise 0") % 2**63 for key in keys]),
    )
    images = augment_intensities(
        crops.images[:, None], crops.valid, params.to(blocks.images.device)
    )
    zoom = torch.tensor(zooms, dtype=torch.float32, device=matrix.device)
    return replace(crops, images=images[:, 0], spacing_mm=blocks.spacing_mm * zoom[:, None])


def _draw_transform(key: SampleKey, section: CropAugmentation) -> tuple[float, NDArray[np.float32]]:
    """Zoom, and the matrix of rotation, zoom and mirroring (z, y, x)."""
    _, zoom, matrix = draw_affine(key, section.affine)
    flipped = key.generator("flip").random(3) < 0.5
    signs = [
        -1 if flip and axis in section.flip else 1
        for flip, axis in zip(flipped, "zyx", strict=True)
    ]
    return zoom, matrix * np.array(signs, np.float32)


def _displacements(
    keys: Sequence[SampleKey], size: Triple, section: CropAugmentation
) -> Float[Tensor, "batch z y x 3"] | None:
    """Voxels that each voxel of a crop is displaced by; None where no crop is deformed.

    Linear between control points that are drawn uniformly, as free-form deformations are.
    """
    elastic, fields = section.elastic, []
    for key in keys:
        rng = key.generator("elastic")
        is_deformed = rng.random() < elastic.probability
        fields.append(is_deformed * rng.uniform(-1, 1, (3, *CONTROL_POINTS)))
    if not np.any(fields):
        return None
    largest = elastic.displacement * torch.tensor(size, dtype=torch.float32)
    points = torch.from_numpy(np.stack(fields).astype(np.float32)) * largest[:, None, None, None]
    field = interpolate(points, size=size, mode="trilinear", align_corners=True)
    return field.movedim(1, -1)


def _transform(
    blocks: LabelledCrops,
    size: Triple,
    matrix: Float[Tensor, "batch 3 3"],
    displacements: Float[Tensor, "batch z y x 3"] | None,
    ignore_index: int,
) -> LabelledCrops:
    """Resample about the middle: linear for intensities, nearest for valid voxels and truth."""
    axes = [torch.arange(n, device=matrix.device, dtype=torch.float32) - (n - 1) / 2 for n in size]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    spacing = blocks.spacing_mm[:, None, None, None]
    there = torch.einsum("bij,bzyxj->bzyxi", matrix, offsets * spacing) / spacing
    if displacements is not None:
        there = there + displacements.to(there.device)
    # (x, y, z), -1..1 between the centres of the outer voxels of the block
    half = [max(n - 1, 1) / 2 for n in blocks.images.shape[1:]]
    grid = torch.stack([part / h for part, h in zip(there.unbind(-1), half, strict=True)][::-1], -1)
    images = grid_sample(
        blocks.images[:, None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    masks = torch.stack([blocks.valid, (blocks.truth - ignore_index).float()], dim=1)
    nearest = grid_sample(masks, grid, mode="nearest", padding_mode="zeros", align_corners=True)
    valid, truth = nearest.unbind(dim=1)
    return replace(
        blocks, images=images[:, 0], valid=valid, truth=truth.round().long() + ignore_index
    )
