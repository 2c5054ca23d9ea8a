"""Samples of a step, collated into a batch for transfer to the training device.

Voxels are transferred as stored: int16, half the bytes of floats and one block for two crops.
Values that decide how work is batched stay on the host as well, so that they are never copied back;
what the device needs for that work (indices of transformed samples, blur weights) is sent with the
voxels, so that it never waits for a small copy of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from numpy.typing import NDArray
from torch import Tensor

# Columns of `SampleBatch.intensity_params`: augmentations of a view, in the order of application.
INTENSITY_PARAMS = ("bias", "blur", "gamma", "low", "high", "contrast", "brightness", "noise")
BLUR_RADIUS = 3  # voxels


@dataclass(frozen=True)
class Sample:
    """One sample with the parameters of its two views; fields and units as in `SampleBatch`."""

    voxels: NDArray[np.int16]
    units: NDArray[np.float32]
    spacing_mm: NDArray[np.float32]
    zoom: float
    matrix: NDArray[np.float32]
    is_transformed: bool
    start: NDArray[np.int64]
    order: NDArray[np.float32]
    intensity_params: NDArray[np.float32]
    bias_field: NDArray[np.float32]
    noise_seeds: NDArray[np.int64]
    centre: NDArray[np.float32]
    subject: int
    metadata_features: NDArray[np.float32]
    number: int
    entry_index: int


@dataclass(frozen=True)
class SampleBatch:
    """B samples; of axes `views` all first views come before all second ones."""

    voxels: Int16[Tensor, "samples 2 z y x"]  # of a block: intensity and mask bits, as stored
    units: Float[Tensor, "samples 4"]  # model input = clip(stored * factor + shift, low, high)
    spacing_mm: Float[Tensor, "samples 3"]  # (z, y, x) of the stored voxels
    zoom: Float[Tensor, " samples"]  # how many stored voxels a voxel of a view spans
    matrix: Float[Tensor, "samples 3 3"]  # from mm of a view to mm of the block, about its middle
    transformed_index: Int[Tensor, " turned"]  # the samples whose `matrix` is not the identity
    start: Int[Tensor, "views 3"]  # first voxel of a crop in its block
    host_start: NDArray[np.int64]  # the same on the host
    order: Float[Tensor, "views tokens"]  # random numbers that decide which tokens are visible
    intensity_params: Float[Tensor, "views params"]  # see `INTENSITY_PARAMS`
    host_intensity_params: NDArray[np.float32]  # the same on the host
    blur_index: Int[Tensor, " blurred"]  # the views that are blurred
    blur_taps: Float[Tensor, "blurred taps"]  # weights of their blurs, voxel by voxel
    bias_field: Float[Tensor, "views 3 3 3"]  # a coarse random field
    noise_seeds: NDArray[np.int64]  # (views,) seeds of the noise
    centre: NDArray[np.float32]  # (views, 3) of a crop, as a fraction of its volume
    subject: Int[Tensor, " samples"]  # equal numbers, equal subjects
    # By which subjects are similar, see `objectives.metadata_similarity`.
    metadata_features: Float[Tensor, "samples features"]
    number: NDArray[np.int64]  # (samples,) global sample numbers
    entry_index: NDArray[np.int64]  # (samples,) indices of the volumes in the sampler's list
    # Drop path, where the encoder has it.
    branch_factors: Float[Tensor, "views branches"] | None = None

    def to(self, device: str) -> "SampleBatch":
        """Copy to another device, asynchronously."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "SampleBatch":
        """Copy to pinned memory, from which a GPU copies asynchronously."""
        return self._map_tensors(Tensor.pin_memory)

    def _map_tensors(self, move: Callable[[Tensor], Tensor]) -> "SampleBatch":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: move(value) for name, value in tensors.items()}
        return replace(self, **moved)


def collate(samples: Sequence[Sample]) -> SampleBatch:
    """Stack samples into a batch."""

    def each(name: str) -> NDArray[Any]:
        return np.stack([getattr(sample, name) for sample in samples])

    def views(name: str) -> NDArray[Any]:
        return np.concatenate(list(each(name).swapaxes(0, 1)))

    start, intensity_params = views("start"), views("intensity_params")
    sigmas = intensity_params[:, INTENSITY_PARAMS.index("blur")]
    blurred = np.flatnonzero(sigmas)
    return SampleBatch(
        **{name: torch.from_numpy(each(name)) for name in ("voxels", "units", "spacing_mm")},
        zoom=torch.tensor([sample.zoom for sample in samples], dtype=torch.float32),
        matrix=torch.from_numpy(each("matrix")),
        transformed_index=torch.from_numpy(
            np.flatnonzero([sample.is_transformed for sample in samples])
        ),
        start=torch.from_numpy(start),
        host_start=start,
        order=torch.from_numpy(views("order")),
        intensity_params=torch.from_numpy(intensity_params),
        host_intensity_params=intensity_params,
        blur_index=torch.from_numpy(blurred),
        blur_taps=torch.from_numpy(_gaussian_taps(sigmas[blurred])),
        bias_field=torch.from_numpy(views("bias_field")),
        noise_seeds=views("noise_seeds"),
        centre=views("centre"),
        subject=torch.tensor([sample.subject for sample in samples]),
        metadata_features=torch.from_numpy(each("metadata_features")),
        number=np.array([sample.number for sample in samples]),
        entry_index=np.array([sample.entry_index for sample in samples]),
    )


def _gaussian_taps(sigmas: NDArray[np.float32]) -> NDArray[np.float32]:
    """One Gaussian per sigma (in voxels) out to `BLUR_RADIUS`, with a sum of 1."""
    taps = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=np.float32)
    weights: NDArray[np.float32] = np.exp(-0.5 * (taps / sigmas[:, None]) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights
