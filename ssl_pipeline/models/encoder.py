"""The encoder interface of every backbone: crops in, tokens out, sparse or dense.

Objectives, evaluation and export use this class alone, so that a new backbone needs no change of
theirs. It is a class and no protocol because all of them also train, move and store the module.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_pipeline.models import ModelConfig
from ssl_pipeline.models.drop_path import draw_branch_factors
from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.patches import patch_grid


@dataclass(frozen=True)
class FeatureInfo:
    """Grid of a feature map."""

    channels: int
    reduction: Triple  # voxels of the crop between neighbours (z, y, x)
    kernel: Triple = (3, 3, 3)  # that suits its voxels: 1 along slices that are thick


@dataclass(frozen=True)
class CropFeatures:
    """What one pass of an encoder gives of crops."""

    tokens: Float[Tensor, "batch seen dim"]  # all, or the visible ones
    # Of the stages of a convolutional encoder, finest first; hidden voxels are 0.
    maps: list[Float[Tensor, "batch _ _ _ _"]]


class Encoder(nn.Module, ABC):
    """Crops of model input to tokens, ordered row-major over the patches (see `views.patches`).

    Attributes: `dim`, width of a token; `patch`, its voxels (z, y, x); `branches`, how many
    residual branches drop path may skip (0: none), `drop_path`, how often the last of them, and
    `drop_path_seed`, what it is drawn from (None: no branch is skipped);
    `trunk`, the name of the list of blocks that a crop goes through; `norm`, what comes after them;
    `feature_info`, the grids of what they give; `pyramid_channels`, those of `pyramid`.
    """

    trunk: ClassVar[str] = "blocks"

    dim: int
    patch: Triple
    branches: int = 0
    drop_path: float = 0.0
    drop_path_seed: int | None = None
    feature_info: list[FeatureInfo]
    pyramid_channels: tuple[int, ...]

    @abstractmethod
    def forward_features(
        self,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
        visible: Int[Tensor, "batch visible"] | None = None,
        branch_factors: Float[Tensor, "batch branches"] | None = None,
    ) -> CropFeatures:
        """Tokens and maps of crops whose sides are multiples of the patch's; spacing is (z, y, x).

        With `visible` the tokens are these alone, which no voxel of another patch has reached; None
        is a dense pass. `branch_factors` (see `drop_path`) multiply the residual branches of each
        crop; None leaves them as they are.
        """

    def forward(
        self, crops: Float[Tensor, "batch 1 z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """All tokens of crops (dense)."""
        return self.forward_features(crops, spacing_mm).tokens

    def forward_sparse(
        self,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
        visible: Int[Tensor, "batch visible"],
        branch_factors: Float[Tensor, "batch branches"] | None = None,
    ) -> Float[Tensor, "batch visible dim"]:
        """The tokens `visible`, which no voxel of another patch has reached."""
        return self.forward_features(crops, spacing_mm, visible, branch_factors).tokens

    @abstractmethod
    def forward_intermediates(
        self, crops: Float[Tensor, "batch 1 z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """What each block of the trunk gives (batch, channels, z, y, x), on the grids of `maps`."""

    def pyramid(
        self, features: CropFeatures, crops: Float[Tensor, "batch 1 z y x"]
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """One map of each resolution, finest first, of a dense pass over `crops`.

        The last holds the tokens; a backbone of one resolution has no other.
        """
        grid = patch_grid(triple(crops.shape[2:]), self.patch)
        return [*features.maps[:-1], features.tokens.transpose(1, 2).unflatten(2, grid)]

    @contextmanager
    def applying_drop_path(self, seed: int) -> Iterator[None]:
        """Skip branches in the passes inside, drawn by this seed and the samples' numbers."""
        self.drop_path_seed = seed
        try:
            yield
        finally:
            self.drop_path_seed = None

    def branch_factors(
        self, sample_numbers: Int[NDArray[np.int64], " samples"], device: torch.device
    ) -> Float[Tensor, "views branches"] | None:
        """Factors of two views of each sample, for `forward_sparse`; None outside of training."""
        if self.drop_path_seed is None or not self.branches:
            return None
        drawn = draw_branch_factors(
            self.drop_path, self.branches, self.drop_path_seed, sample_numbers.tolist()
        )
        return torch.from_numpy(drawn).to(device, non_blocking=True)

    def attention(
        self, crops: Float[Tensor, "batch 1 z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch heads tokens tokens"] | None:
        """How much each token attends to each other in the last block; None without attention."""
        return None


def random_encoder(config: ModelConfig, seed: int) -> Encoder:
    """An encoder whose weights are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build()
