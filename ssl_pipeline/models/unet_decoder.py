"""The decoder of a residual-encoder U-Net, of which every resolution is supervised.

As in nnU-Net's ResEnc presets, a stage is a transposed convolution, the skip of its resolution
beside it, and one convolution with instance norm and LeakyReLU. Modules have the names of
`dynamic-network-architectures`.

Pretraining may train it along with the encoder, and fine-tuning then takes it over by name. Behind
a sparse pass hidden voxels of the skips are 0 and the decoder is dense, so that no hidden voxel of
the crop reaches its maps. A learned embedding of each level in their place, as SparK has it, gave
the same loss: .2492 against .2493, the means of steps 60 to 120 on crops of MR, preset tiny.
"""

from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, cat, nn
from torch.nn.functional import leaky_relu

from ssl_pipeline.models.encoder import CropFeatures, Encoder, FeatureInfo
from ssl_pipeline.models.resenc import (
    NEGATIVE_SLOPE,
    NormedConvolution,
    ResidualStage,
    initialise_convolutions,
    scatter_voxels,
    stage_maps,
)
from ssl_pipeline.models.unet_config import stem_stages
from ssl_pipeline.models.voxel_decoder import VoxelDecoder
from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.patches import patch_grid


class UNetDecoder(VoxelDecoder):
    """Maps of every resolution but that of the tokens."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.stem = None if _has_every_resolution(encoder) else ConvolutionalStem(encoder)
        maps = joined_maps(encoder)
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
        return self.decode(encoder.forward_features(crops, spacing_mm), crops)

    def decode(
        self,
        features: CropFeatures,
        crops: Float[Tensor, "batch 1 z y x"],
        visible: Int[Tensor, "batch visible"] | None = None,
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """The same of a pass of the encoder over the crops; `visible` are the patches that it saw.

        None: it saw all of them.
        """
        maps = self.stem(features.tokens, crops, visible) if self.stem else features.maps
        *skips, voxels = maps
        found = []
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[::-1], strict=True):
            joined = stage(cat([up(voxels), skip], dim=1), None)
            voxels = leaky_relu(joined, NEGATIVE_SLOPE)
            found.append(voxels)
        return found[::-1]


class PretrainedNetwork(nn.Module):
    """An encoder, and the decoder that was trained along with it, if one was."""

    def __init__(self, encoder: Encoder, decoder: UNetDecoder | None) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def dense_maps(
        self, crops: Float[Tensor, "batch 1 z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """One map of each resolution, finest first: the decoder's, or the encoder's own.

        The last holds the tokens.
        """
        features = self.encoder.forward_features(crops, spacing_mm)
        maps = self.encoder.pyramid(features, crops)
        return [*self.decoder.decode(features, crops), maps[-1]] if self.decoder else maps


class ConvolutionalStem(nn.Module):
    """Residual stages of the crop itself, at the last of which an encoder's tokens join.

    It gives an encoder of tokens the finer maps that a U-Net needs.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.patch, stages = encoder.patch, stem_stages(encoder.patch)
        self.stem = NormedConvolution(1, stages[0].in_channels, stages[0].kernel)
        self.stages = nn.ModuleList(ResidualStage(stage) for stage in stages)
        last = stages[-1].out_channels
        self.join = NormedConvolution(encoder.dim + last, last, (1, 1, 1))

    def forward(
        self,
        tokens: Float[Tensor, "batch seen dim"],
        crops: Float[Tensor, "batch 1 z y x"],
        visible: Int[Tensor, "batch visible"] | None,
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """Maps of the stages, the tokens joined into the last; None: all patches are visible."""
        *finer, last = stage_maps(self.stem, self.stages, self.patch, crops, visible)
        grid = patch_grid(triple(crops.shape[2:]), self.patch)
        placed = tokens.transpose(1, 2)
        if visible is None:
            placed = placed.unflatten(2, grid)
        else:
            placed = scatter_voxels(placed, visible, (*placed.shape[:2], *grid))
        joined = self.join(cat([placed.to(last.dtype), last], dim=1), visible)
        return [*finer, leaky_relu(joined, NEGATIVE_SLOPE)]


def joined_maps(encoder: Encoder) -> list[FeatureInfo]:
    """Grids of the maps that the decoder joins, finest first: the encoder's, or a stem's."""
    if _has_every_resolution(encoder):
        return encoder.feature_info
    stages = stem_stages(encoder.patch)
    return [FeatureInfo(s.out_channels, s.reduction, s.kernel) for s in stages]


def voxel_head(encoder: Encoder) -> nn.Conv3d:
    """A convolution from the decoder's finest map to the value of each voxel."""
    return nn.Conv3d(joined_maps(encoder)[0].channels, 1, 1)


def _has_every_resolution(encoder: Encoder) -> bool:
    """Whether maps begin at full resolution, as those of a convolutional encoder do."""
    return max(encoder.feature_info[0].reduction) == 1 < len(encoder.feature_info)


def _ratio(fine: FeatureInfo, coarse: FeatureInfo) -> Triple:
    """How many voxels of the finer map one of the coarser map spans."""
    return triple(c // f for c, f in zip(coarse.reduction, fine.reduction, strict=True))
