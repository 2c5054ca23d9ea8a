"""Samples of a step, collated into a batch for transfer to the training device.

Voxels are transferred as stored: int16, half the bytes of floats, and one block for two crops of
a scan.
Values that decide how work is batched stay on the host as well, so that they are never copied back;
what the device needs for that work (indices of transformed samples, blur weights) is sent with the
voxels, so that it never waits for a small copy of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.views.sample import (
    INTENSITY_PARAMS,
    Sample,
    SampleMeta,
    SampleParams,
    stack_metadata,
)

BLUR_RADIUS = 3  # voxels


@dataclass(frozen=True)
class IntensityParams:
    """Random parameters of the intensities of views."""

    intensity_params: Float[Tensor, "views params"]  # see `INTENSITY_PARAMS`
    host_intensity_params: NDArray[np.float32]  # the same on the host
    blur_index: Int[Tensor, " blurred"]  # the views that are blurred
    blur_taps: Float[Tensor, "blurred taps"]  # weights of their blurs, voxel by voxel
    bias_field: Float[Tensor, "views 3 3 3"]  # a coarse random field
    noise_seeds: NDArray[np.int64]  # (views,) seeds of the noise

    def to(self, device: torch.device) -> "IntensityParams":
        """Copy to another device."""
        return _map_tensors(self, lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class ViewParams(IntensityParams):
    """Random parameters of views; of axes `views` all first views come before all second ones."""

    zoom: Float[Tensor, " samples"]  # how many stored voxels a voxel of a view spans
    matrix: Float[Tensor, "samples 3 3"]  # from mm of a view to mm of the block, about its middle
    transformed_index: Int[Tensor, " turned"]  # the samples whose `matrix` is not the identity
    start: Int[Tensor, "views 3"]  # first voxel of a crop in its block
    host_start: NDArray[np.int64]  # the same on the host
    order: Float[Tensor, "views tokens"]  # random numbers that decide which tokens are visible
    recoloured_index: Int[Tensor, " recoloured"]  # the views that are recoloured
    class_values: Float[Tensor, "recoloured classes"]  # means of their classes of intensity
    class_gains: Float[Tensor, "recoloured classes"]  # of the differences from these means


@dataclass(frozen=True)
class SampleBatch:
    """B samples: the blocks of their voxels, the parameters of their views, their metadata.

    The first B blocks are those of the first views, and of the second ones unless these have
    their own.
    """

    voxels: Int16[Tensor, "blocks 2 z y x"]  # intensity and mask bits, as stored
    units: Float[Tensor, "blocks 4"]  # model input = clip(stored * factor + shift, low, high)
    spacing_mm: Float[Tensor, "blocks 3"]  # (z, y, x) of the stored voxels
    block_index: Int[Tensor, " views"]  # the block that a view is cropped from
    host_block_index: NDArray[np.int64]  # the same on the host
    params: ViewParams
    meta: SampleMeta

    def to(self, device: str) -> "SampleBatch":
        """Copy to another device, asynchronously."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "SampleBatch":
        """Copy to pinned memory, from which a GPU copies asynchronously."""
        return self._map_tensors(Tensor.pin_memory)

    def _map_tensors(self, move: Callable[[Tensor], Tensor]) -> "SampleBatch":
        moved = _map_tensors(self, move)
        params, meta = _map_tensors(self.params, move), _map_tensors(self.meta, move)
        return replace(moved, params=params, meta=meta)


Record = TypeVar("Record", SampleBatch, IntensityParams, ViewParams, SampleMeta)


def _map_tensors(record: Record, move: Callable[[Tensor], Tensor]) -> Record:
    tensors = {name: value for name, value in vars(record).items() if isinstance(value, Tensor)}
    moved: dict[str, Any] = {name: move(value) for name, value in tensors.items()}
    return replace(record, **moved)


def collate(samples: Sequence[Sample]) -> SampleBatch:
    """Stack samples into a batch."""
    own = [sample.blocks[1] for sample in samples if len(sample.blocks) > 1]  # of second views
    blocks = [*(sample.blocks[0] for sample in samples), *own]
    block_index = _block_index([len(sample.blocks) for sample in samples])
    scaling = np.array([block.volume.input_scaling for block in blocks], np.float32)
    spacing_mm = np.array([block.volume.spacing_mm for block in blocks], np.float32)
    return SampleBatch(
        voxels=torch.from_numpy(np.stack([block.voxels for block in blocks])),
        units=torch.from_numpy(scaling),
        spacing_mm=torch.from_numpy(spacing_mm),
        block_index=torch.from_numpy(block_index),
        host_block_index=block_index,
        params=_collate_params([sample.params for sample in samples]),
        meta=stack_metadata([sample.meta for sample in samples]),
    )


def _block_index(blocks_per_sample: Sequence[int]) -> NDArray[np.int64]:
    """The block of each view, where those of second views come after all first ones."""
    first = np.arange(len(blocks_per_sample))
    has_own = np.array(blocks_per_sample) > 1
    second = np.where(has_own, len(first) + np.cumsum(has_own) - 1, first)
    return np.concatenate([first, second])


def _collate_params(params: Sequence[SampleParams]) -> ViewParams:
    def views(name: str) -> NDArray[Any]:
        each = np.stack([getattr(sample, name) for sample in params])
        return np.concatenate(list(each.swapaxes(0, 1)))

    start = views("start")
    is_recoloured = np.array([sample.is_recoloured for sample in params])
    intensities = collate_intensity_params(
        views("intensity_params"), views("bias_field"), views("noise_seeds")
    )
    return ViewParams(
        **vars(intensities),
        zoom=torch.tensor([sample.zoom for sample in params], dtype=torch.float32),
        matrix=torch.from_numpy(np.stack([sample.matrix for sample in params])),
        transformed_index=torch.from_numpy(
            np.flatnonzero([sample.is_transformed for sample in params])
        ),
        start=torch.from_numpy(start),
        host_start=start,
        order=torch.from_numpy(views("order")),
        recoloured_index=torch.from_numpy(len(params) + np.flatnonzero(is_recoloured)),
        class_values=torch.from_numpy(
            np.stack([sample.class_values for sample in params])[is_recoloured]
        ),
        class_gains=torch.from_numpy(
            np.stack([sample.class_gains for sample in params])[is_recoloured]
        ),
    )


def collate_intensity_params(
    intensity_params: NDArray[np.float32],
    bias_field: NDArray[np.float32],
    noise_seeds: NDArray[np.int64],
) -> IntensityParams:
    """Parameters (views, params), bias fields (views, 3, 3, 3) and seeds of noise (views,)."""
    sigmas = intensity_params[:, INTENSITY_PARAMS.index("blur")]
    blurred = np.flatnonzero(sigmas)
    return IntensityParams(
        intensity_params=torch.from_numpy(intensity_params),
        host_intensity_params=intensity_params,
        blur_index=torch.from_numpy(blurred),
        blur_taps=torch.from_numpy(_gaussian_taps(sigmas[blurred])),
        bias_field=torch.from_numpy(bias_field),
        noise_seeds=noise_seeds,
    )


def _gaussian_taps(sigmas: NDArray[np.float32]) -> NDArray[np.float32]:
    """One Gaussian per sigma (in voxels) out to `BLUR_RADIUS`, with a sum of 1."""
    taps = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=np.float32)
    weights: NDArray[np.float32] = np.exp(-0.5 * (taps / sigmas[:, None]) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
