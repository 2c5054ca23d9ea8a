"""One sample of a batch: blocks of voxels, the random parameters of its two views, its metadata."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.preprocess.prepare import VolumeMeta

# Columns of `intensity_params`: augmentations of a view, in the order of application.
INTENSITY_PARAMS = (
    *("bias", "blur", "low_resolution", "gamma", "low", "high", "contrast", "brightness"),
    "noise",
)


@dataclass(frozen=True)
class Block:
    """Voxels (2, z, y, x) read from a volume, and where the block begins in it."""

    entry_index: int
    volume: VolumeMeta
    voxels: NDArray[np.int16]
    start: NDArray[np.int64]
    shares_place: bool = True  # whether its centre is that of the sample's first block, in mm


@dataclass(frozen=True)
class SampleParams:
    """Random parameters of a sample's two views; units as in `collate.ViewParams`."""

    zoom: float
    matrix: NDArray[np.float32]
    is_transformed: bool
    start: NDArray[np.int64]
    order: NDArray[np.float32]
    intensity_params: NDArray[np.float32]
    bias_field: NDArray[np.float32]
    noise_seeds: NDArray[np.int64]
    is_recoloured: bool
    class_values: NDArray[np.float32]
    class_gains: NDArray[np.float32]


@dataclass(frozen=True)
class SampleMeta:
    """Metadata of a sample or, stacked along a first axis, of a batch.

    The sampler makes it once; losses and metrics get the same object. A new field is a line here
    and one where the sampler makes it. Tensors follow the voxels to the training device, arrays
    stay on the host.
    """

    number: Int[NDArray[np.int64], "*samples"]  # in the run; with the seed, the key of its draws
    subject: Int[Tensor, "*samples"]  # equal numbers, equal subjects
    # What terms read of the scan of the first view, and of that of the second (`views.partner`).
    metadata_features: Float[Tensor, "*samples features"]
    second_features: Float[Tensor, "*samples features"]
    shares_place: Bool[Tensor, "*samples"]  # whether both views lie in one frame
    has_partner: Bool[Tensor, "*samples"]  # whether the second view is of another scan
    entry_index: Int[NDArray[np.int64], "*samples 2"]  # of each view, in the sampler's list
    centre: Float[NDArray[np.float32], "*samples 2 3"]  # of each crop, as a fraction of its volume


@dataclass(frozen=True)
class Sample:
    """One sample; `blocks` has one that both views are cropped from, or one for each."""

    blocks: tuple[Block, ...]
    params: SampleParams
    meta: SampleMeta


def stack_metadata(metas: Sequence[SampleMeta]) -> SampleMeta:
    """The metadata of a batch of samples."""

    def stack(values: list[Any]) -> Any:
        return torch.stack(values) if isinstance(values[0], Tensor) else np.stack(values)

    names = [field.name for field in fields(SampleMeta)]
    return SampleMeta(**{name: stack([getattr(meta, name) for meta in metas]) for name in names})
