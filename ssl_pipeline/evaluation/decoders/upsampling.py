"""Upsampling of encoder features to full resolution, by factors of two.

A token stands for some hundred voxels. There is no normalisation: a window of one tissue has
nothing to be normalised by (see `finetuning.segmentation_model`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, cat, nn

from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.types import Triple

WIDTH = 8  # channels at full resolution
MAX_WIDTH = 96  # most channels, next to the tokens


class VoxelDecoder(nn.Module, ABC):
    """Base class: crops through an encoder to `WIDTH` channels a voxel; it holds no encoder."""

    @abstractmethod
    def forward(
        self,
        encoder: Encoder,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch width z y x"]:
        """A map of the crops; sides are multiples of the encoder's patch."""


class TokenUpsampler(VoxelDecoder):
    """Transposed convolutions of the last tokens."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.up = _upsampling_block(encoder.dim, encoder.patch, widths(encoder.patch))

    def forward(
        self,
        encoder: Encoder,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch width z y x"]:
        """A map of the crops."""
        tokens = encoder(crops, spacing_mm)
        grid = [side // p for side, p in zip(crops.shape[2:], encoder.patch, strict=True)]
        upsampled: Tensor = self.up(tokens.transpose(1, 2).reshape(len(tokens), -1, *grid))
        return upsampled


class SkipUpsampler(VoxelDecoder):
    """After each upsampling, a feature map of the encoder is upsampled as far and concatenated."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        maps, steps = encoder.feature_info, factors(encoder.patch)
        before, finest = maps[-1].channels, maps[-1].reduction
        self.up, self.lift, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.skips: list[int] = []  # of the maps, in the order of `lift`
        for level, (step, width) in enumerate(zip(steps, widths(encoder.patch), strict=True), 1):
            finest = _divide(finest, step)
            self.up.append(_upsampling_block(before, step, [width]))
            if level < len(steps):
                index = _skip_index(
                    [each.reduction for each in maps], finest, 1 - level / len(steps)
                )
                ratio = _divide(maps[index].reduction, finest)
                lifted = [width] * max(1, len(factors(ratio)))
                self.lift.append(_upsampling_block(maps[index].channels, ratio, lifted))
                self.join.append(smoothing_block(2 * width, width))
                self.skips.append(index)
            before = width

    def forward(
        self,
        encoder: Encoder,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch width z y x"]:
        """A map of the crops."""
        intermediates = encoder.forward_intermediates(crops, spacing_mm)
        *before, last = self.up
        upsampled = intermediates[-1]
        for up, lift, join, index in zip(before, self.lift, self.join, self.skips, strict=True):
            upsampled = join(cat([up(upsampled), lift(intermediates[index])], dim=1))
        voxels: Tensor = last(upsampled)
        return voxels


def factors(patch: Triple) -> list[Triple]:
    """Upsampling factors by stage, whose product is the patch: 2 where even, else all at once."""
    left, stages = list(patch), []
    while max(left) > 1:
        z, y, x = (2 if side % 2 == 0 else side for side in left)
        stages.append((z, y, x))
        left = [side // step for side, step in zip(left, (z, y, x), strict=True)]
    return stages


def widths(patch: Triple) -> list[int]:
    """Channels after each upsampling stage of a patch."""
    stages = len(factors(patch))
    return [min(MAX_WIDTH, WIDTH * 2 ** (stages - 1 - index)) for index in range(stages)]


def smoothing_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """A convolution that keeps the resolution."""
    return nn.Sequential(nn.Conv3d(in_channels, out_channels, 3, padding=1), nn.LeakyReLU(0.01))


def _upsampling_block(
    in_channels: int, ratio: Triple, widths_after: Sequence[int]
) -> nn.Sequential:
    """Transposed convolutions that upsample by `ratio`, with `widths_after` channels.

    A ratio of 1 is a convolution.
    """
    layers: list[nn.Module] = []
    for step, width in zip(factors(ratio), widths_after, strict=False):
        layers += [nn.ConvTranspose3d(in_channels, width, step, step), nn.LeakyReLU(0.01)]
        in_channels = width
    return nn.Sequential(*layers) if layers else smoothing_block(in_channels, widths_after[0])


def _skip_index(steps: Sequence[Triple], wanted: Triple, height: float) -> int:
    """Index of the map to join: one of that resolution, or the one at that relative depth."""
    own = [index for index, step in enumerate(steps[:-1]) if step == wanted]
    return own[-1] if own else max(0, round(len(steps) * height) - 1)


def _divide(step: Triple, by: Triple) -> Triple:
    z, y, x = (side // part for side, part in zip(step, by, strict=True))
    return z, y, x
