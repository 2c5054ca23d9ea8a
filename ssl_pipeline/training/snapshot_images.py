"""Computes snapshot images: reconstruction and attention of a few crops, for `snapshots`."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.training.snapshots import ImageArrays
from ssl_pipeline.views.crops import Batch
from ssl_pipeline.views.patches import patch_grid, patchify, unpatchify

IMAGE_CROPS = 4


@torch.no_grad()
def snapshot_images(
    objective: Objective, batch: Batch, autocast: Callable[[], torch.autocast]
) -> ImageArrays:
    """The arrays for the first crops of a batch, without augmentation."""
    z, y, x = batch.clean.shape[2:]
    patch = objective.encoder.patch
    with autocast():
        reconstruction = objective.reconstruct(batch, batch.clean)
        attention = objective.encoder.attention(
            batch.clean[:IMAGE_CROPS], batch.spacing_mm[:IMAGE_CROPS]
        )
    patches = patchify(batch.clean, patch)
    masked = patches.scatter(1, batch.hidden[..., None].expand(-1, -1, patches.shape[2]), torch.nan)
    volumes = {"input": batch.clean, "masked": unpatchify(masked, (z, y, x), patch)}
    if reconstruction is not None:
        volumes["reconstruction"] = reconstruction
    if attention is not None:
        middle = _central_token(patch_grid((z, y, x), patch))
        shares = attention[:, :, middle].float().mean(dim=1) * attention.shape[-1]
        voxels = shares[..., None].expand(-1, -1, patches.shape[2])
        volumes["attention"] = unpatchify(voxels, (z, y, x), patch)
    return {name: _slices(volume) for name, volume in volumes.items()}


def _central_token(grid: tuple[int, int, int]) -> int:
    """The number of the token in the middle of a crop."""
    z, y, x = (n // 2 for n in grid)
    return (z * grid[1] + y) * grid[2] + x


def _slices(volume: Tensor) -> NDArray[np.float32]:
    shown: NDArray[np.float32] = (
        volume[:IMAGE_CROPS, 0, volume.shape[2] // 2].float().cpu().numpy().astype(np.float32)
    )
    return shown
