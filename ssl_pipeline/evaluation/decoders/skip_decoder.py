"""The decoder of a residual-encoder U-Net, of which every resolution is supervised.

As in nnU-Net's ResEnc presets, a stage is a transposed convolution, the skip of its resolution
beside it, and one convolution with instance norm and LeakyReLU. Modules have the names of
`dynamic-network-architectures`.
"""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn.functional import leaky_relu

from ssl_pipeline.evaluation.decoders.upsampling import VoxelDecoder, upsampling_factors
from ssl_pipeline.models.encoder import Encoder, FeatureInfo
from ssl_pipeline.models.resenc import (
    NEGATIVE_SLOPE,
    NormedConvolution,
    ResidualStage,
    initialise_convolutions,
)
from ssl_pipeline.models.resenc_config import ResEncStage
from ssl_pipeline.types import Triple

STEM_WIDTH, STEM_MAX_WIDTH = 12, 96  # channels of a stem's first stage, doubled up to the second


class SkipDecoder(VoxelDecoder):
    """Maps of every resolution but that of the tokens."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.stem = None if _has_every_resolution(encoder) else ConvolutionalStem(encoder)
        maps = (self.stem or encoder).feature_info
        levels = [  # from the tokens up
            (own, below, _ratio(own, below)) for own, below in pairwise(maps)
        ][::-1]
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose3d(below.channels, own.channels, step, step)
            for own, below, step in levels
        )
        self.stages = nn.ModuleList(
            NormedConvolution(2 * own.channels, own.channels, own.kernel) for own, _, _ in levels
        )
        self.channels = [each.channels for each in maps[:-1]]
        self.apply(initialise_convolutions)

    def forward(
        self,
        encoder: Encoder,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """Maps of the crops, that of full resolution first."""
        *skips, voxels = (
            self.stem(encoder, crops, spacing_mm)
            if self.stem
            else encoder.forward_intermediates(crops, spacing_mm)
        )
        found = []
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[::-1], strict=True):
            joined = stage(cat([up(voxels), skip], dim=1), None)
            voxels = leaky_relu(joined, NEGATIVE_SLOPE)
            found.append(voxels)
        return found[::-1]


class ConvolutionalStem(nn.Module):
    """Residual stages of the crop itself, at the last of which an encoder's tokens join.

    It gives an encoder of tokens the finer maps that a U-Net needs.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        stages = _stem_stages(encoder.patch)
        self.feature_info = [FeatureInfo(s.out_channels, s.reduction, s.kernel) for s in stages]
        self.stem = NormedConvolution(1, stages[0].in_channels, stages[0].kernel)
        self.stages = nn.ModuleList(ResidualStage(stage) for stage in stages)
        last = stages[-1].out_channels
        self.join = NormedConvolution(encoder.dim + last, last, (1, 1, 1))

    def forward(
        self,
        encoder: Encoder,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """Maps on the grids of `feature_info`."""
        features, found = leaky_relu(self.stem(crops, None), NEGATIVE_SLOPE), []
        for stage in self.stages:
            features = stage(features, None)
            found.append(features)
        tokens = encoder(crops, spacing_mm).transpose(1, 2).unflatten(2, features.shape[2:])
        joined = self.join(cat([features, tokens], dim=1), None)
        return [*found[:-1], leaky_relu(joined, NEGATIVE_SLOPE)]


def _has_every_resolution(encoder: Encoder) -> bool:
    """Whether maps begin at full resolution, as those of a convolutional encoder do."""
    return max(encoder.feature_info[0].reduction) == 1 < len(encoder.feature_info)


def _stem_stages(patch: Triple) -> list[ResEncStage]:
    """Stages from full resolution to one voxel a patch."""
    strides: list[Triple] = [(1, 1, 1), *upsampling_factors(patch)[::-1]]
    stages, reduction, before = [], (1, 1, 1), STEM_WIDTH
    for level, stride in enumerate(strides):
        z, y, x = (side * step for side, step in zip(reduction, stride, strict=True))
        reduction, width = (z, y, x), min(STEM_WIDTH * 2**level, STEM_MAX_WIDTH)
        kernel = _kernel(strides[level + 1]) if level + 1 < len(strides) else (3, 3, 3)
        stages.append(ResEncStage(before, width, stride, reduction, kernel, blocks=1))
        before = width
    return stages


def _kernel(step: Sequence[int]) -> Triple:
    """Kernel at a resolution that is left by `step`: an axis that is not reduced yet has thick
    slices and is not convolved.
    """
    z, y, x = (3 if side > 1 else 1 for side in step)
    return z, y, x


def _ratio(fine: FeatureInfo, coarse: FeatureInfo) -> Triple:
    """How many voxels of the finer map one of the coarser map spans."""
    z, y, x = (c // f for c, f in zip(coarse.reduction, fine.reduction, strict=True))
    return z, y, x
