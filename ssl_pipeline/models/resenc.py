"""The convolutional backbone: residual stages down to one voxel a patch, dense or sparse.

Convolutional networks segment best of all still (ResEnc, Isensee et al. 2024, arXiv:2404.09556), so
there is one for those who segment. What is left of a patch at the last stage is its token, so that
objectives and evaluation work as with the transformer, and a U-Net's decoder takes the maps of all
stages. The stages compute what those of nnU-Net's own ResEnc presets do, and can be
exported to it (`export/formats/nnunet.py` has the names). It needs no positions: a convolution sees
what lies beside what.
Instance norms forget how bright a crop is: a linear model predicted the mean of real crops from the
mean token of random weights with an R2 of .7, and from the transformer's with 1.0.

The sparse pass hides patches as SparK does (Tian et al. 2023, arXiv:2301.03580): hidden voxels are
zero at the input and again after every convolution, at every resolution, and norms take their
statistics from visible voxels alone. It saves no time: a hidden voxel is computed and thrown away.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, instance_norm, leaky_relu

from ssl_pipeline.models.convolution import Convolution
from ssl_pipeline.models.encoder import CropFeatures, Encoder, FeatureInfo
from ssl_pipeline.models.resenc_config import ResEnc, ResEncStage
from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.patches import gather_tokens, patch_grid, patchify

NEGATIVE_SLOPE = 0.01  # of LeakyReLU below zero


class ResEncEncoder(Encoder):
    """Stem, stages of residual blocks and a projection to tokens; see `Encoder`."""

    trunk: ClassVar[str] = "stages"

    def __init__(self, config: ResEnc) -> None:
        super().__init__()
        self.dim, self.patch, stages = config.width, config.patch_voxels, config.stages
        self.pyramid_channels = config.pyramid_channels
        self.feature_info = [FeatureInfo(s.out_channels, s.reduction, s.kernel) for s in stages]
        self.stem = NormedConvolution(1, stages[0].in_channels, stages[0].kernel)
        self.stages = nn.ModuleList(ResidualStage(stage) for stage in stages)
        self.project = nn.Linear(stages[-1].out_channels, self.dim)
        self.norm = nn.LayerNorm(self.dim)
        self.apply(initialise_convolutions)

    def forward_features(
        self,
        crops: Float[Tensor, "batch 1 z y x"],
        spacing_mm: Float[Tensor, "batch 3"],
        visible: Int[Tensor, "batch visible"] | None = None,
        branch_factors: Float[Tensor, "batch branches"] | None = None,
    ) -> CropFeatures:
        """Tokens and maps, those `visible` as if there were nothing else in the crop.

        The spacing changes nothing.
        """
        maps = stage_maps(self.stem, self.stages, self.patch, crops, visible)
        tokens = self._tokens(maps[-1])
        return CropFeatures(tokens if visible is None else gather_tokens(tokens, visible), maps)

    def forward_intermediates(
        self, crops: Float[Tensor, "batch 1 z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> list[Float[Tensor, "batch _ _ _ _"]]:
        """Features of every stage (batch, channels, z, y, x), from full resolution down (dense)."""
        return stage_maps(self.stem, self.stages, self.patch, crops, None)

    def _tokens(self, features: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.project(features.flatten(2).transpose(1, 2)))
        return tokens


def stage_maps(
    stem: nn.Module,
    stages: nn.ModuleList,
    patch: Triple,
    crops: Float[Tensor, "batch 1 z y x"],
    visible: Int[Tensor, "batch visible"] | None,
) -> list[Float[Tensor, "batch _ _ _ _"]]:
    """Features of every stage, from full resolution down.

    `visible` says which patches there are, and all other voxels are 0; None that all are.
    """
    size, own = triple(crops.shape[2:]), cast("Sequence[ResidualStage]", stages)
    seen = [
        None if visible is None else voxels_of_patches(visible, size, patch, stage.reduction)
        for stage in own
    ]
    shown = (
        crops
        if seen[0] is None
        else scatter_voxels(_gather_voxels(crops, seen[0]), seen[0], crops.shape)
    )
    features, found = leaky_relu(stem(shown, seen[0]), NEGATIVE_SLOPE), []
    for stage, at in zip(own, seen, strict=True):
        features = stage(features, at)
        found.append(features)
    return found


class ResidualStage(nn.Module):
    """Residual blocks, the first of which strides."""

    def __init__(self, stage: ResEncStage) -> None:
        super().__init__()
        self.reduction = stage.reduction
        strides = [stage.stride] + [(1, 1, 1)] * (stage.blocks - 1)
        before = [stage.in_channels] + [stage.out_channels] * (stage.blocks - 1)
        self.blocks = nn.ModuleList(
            _Block(b, stage.out_channels, stage.kernel, stride)
            for b, stride in zip(before, strides, strict=True)
        )

    def forward(self, features: Tensor, visible_voxels: Tensor | None) -> Tensor:
        """Features at the resolution of the stage; None: every voxel is visible."""
        for block in self.blocks:
            features = block(features, visible_voxels)
        return features


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which averages where the block strides."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.stride = stride
        self.first = NormedConvolution(in_channels, out_channels, kernel, stride)
        self.second = NormedConvolution(out_channels, out_channels, kernel)
        self.shortcut = (
            NormedConvolution(in_channels, out_channels, (1, 1, 1))
            if in_channels != out_channels
            else None
        )

    def forward(self, features: Tensor, visible_voxels: Tensor | None) -> Tensor:
        """`visible_voxels` are those of the resolution that comes out."""
        changed = self.second(
            leaky_relu(self.first(features, visible_voxels), NEGATIVE_SLOPE), visible_voxels
        )
        kept = avg_pool3d(features, self.stride) if max(self.stride) > 1 else features
        if self.shortcut is not None:
            kept = self.shortcut(kept, visible_voxels)
        return leaky_relu(changed + kept, NEGATIVE_SLOPE)


class NormedConvolution(nn.Module):
    """A convolution and an instance norm whose statistics are those of the visible voxels."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = Convolution(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.scale, self.shift = (
            nn.Parameter(torch.ones(out_channels)),
            nn.Parameter(torch.zeros(out_channels)),
        )

    def forward(self, features: Tensor, visible_voxels: Tensor | None) -> Tensor:
        """Normed features; None: every voxel is visible."""
        return _masked_instance_norm(self.conv(features), visible_voxels, self.scale, self.shift)


def _masked_instance_norm(
    features: Float[Tensor, "batch channels z y x"],
    visible_voxels: Int[Tensor, "batch seen"] | None,
    scale: Float[Tensor, " channels"],
    shift: Float[Tensor, " channels"],
) -> Float[Tensor, "batch channels z y x"]:
    """Instance norm of the visible voxels, and zeros elsewhere.

    They are gathered before: at full resolution sums weighted by a mask take five times as long.
    """
    if visible_voxels is None:
        return instance_norm(features, weight=scale, bias=shift)
    normed = instance_norm(_gather_voxels(features, visible_voxels), weight=scale, bias=shift)
    return scatter_voxels(normed, visible_voxels, features.shape)


def voxels_of_patches(
    visible: Int[Tensor, "batch visible"], size: Triple, patch: Triple, reduction: Triple
) -> Int[Tensor, "batch seen"]:
    """Voxels of the patches `visible`, at a resolution of one for every `reduction` of the crop."""
    own = patch_grid(size, reduction)
    number = torch.arange(math.prod(own), device=visible.device, dtype=torch.float64)
    of_patch = patchify(number.reshape(1, 1, *own), patch_grid(patch, reduction))[0].long()
    return of_patch[visible].flatten(1)


def _gather_voxels(
    features: Float[Tensor, "batch channels z y x"], visible_voxels: Int[Tensor, "batch seen"]
) -> Float[Tensor, "batch channels seen"]:
    """The values of the visible voxels."""
    return features.flatten(2).gather(2, visible_voxels[:, None].expand(-1, features.shape[1], -1))


def scatter_voxels(
    values: Float[Tensor, "batch channels seen"],
    visible_voxels: Int[Tensor, "batch seen"],
    shape: tuple[int, ...],
) -> Float[Tensor, "batch channels z y x"]:
    """The inverse of `_gather_voxels`, with zeros elsewhere."""
    empty = values.new_zeros(shape).flatten(2)
    return empty.scatter(2, visible_voxels[:, None].expand_as(values), values).reshape(shape)


def initialise_convolutions(module: nn.Module) -> None:
    """He-normal convolutions for LeakyReLU, as nnU-Net has them; a Xavier-uniform projection."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
