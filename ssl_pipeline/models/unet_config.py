"""Sizes of the U-Net's decoder on a backbone; imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ssl_pipeline.models.backbone import Backbone
from ssl_pipeline.models.resenc_config import ACTIVATIONS_PER_CONV, ResEncStage
from ssl_pipeline.models.topology import upsampling_factors
from ssl_pipeline.types import Triple, triple

STEM_WIDTH, STEM_MAX_WIDTH = 12, 96  # channels of a stem's first stage, doubled up to the second


@dataclass(frozen=True)
class UNetSize:
    """What the decoder adds to a pass of the encoder over a crop."""

    parameter_count: int
    forward_flops: int
    activation_count: int  # numbers that are kept for the backward pass


def stem_stages(patch: Triple) -> list[ResEncStage]:
    """Stages from full resolution to one voxel a patch, for an encoder that has none."""
    strides: list[Triple] = [(1, 1, 1), *upsampling_factors(patch)[::-1]]
    stages, reduction, before = [], (1, 1, 1), STEM_WIDTH
    for level, stride in enumerate(strides):
        reduction = triple(side * step for side, step in zip(reduction, stride, strict=True))
        width = min(STEM_WIDTH * 2**level, STEM_MAX_WIDTH)
        kernel = _kernel(strides[level + 1]) if level + 1 < len(strides) else (3, 3, 3)
        stages.append(ResEncStage(before, width, stride, reduction, kernel, blocks=1))
        before = width
    return stages


def unet_stages(model: Backbone) -> Sequence[ResEncStage]:
    """The stages whose maps the decoder joins: those of the backbone, or of a stem beside it."""
    return model.stages or stem_stages(model.patch_voxels)


def unet_channels(model: Backbone) -> list[int]:
    """Channels of the decoder's maps, that of full resolution first."""
    return [stage.out_channels for stage in unet_stages(model)[:-1]]


def unet_size(model: Backbone, crop_voxels: Triple) -> UNetSize:
    """The size of the decoder, with the stem that a backbone without stages needs."""
    stages = unet_stages(model)
    layers = _decoder_layers(stages)
    if not model.stages:
        layers += _stem_layers(stages, model.width)
    voxels = math.prod(crop_voxels)
    return UNetSize(
        sum(layer.parameter_count for layer in layers),
        sum(voxels // layer.reduction * layer.operations for layer in layers),
        sum(voxels // layer.reduction * layer.activations for layer in layers),
    )


@dataclass(frozen=True)
class _Layer:
    """A convolution, with its operations and activations of a voxel that it makes."""

    reduction: int  # voxels of the crop for one of its own
    parameter_count: int
    operations: int
    activations: int


def _convolution(stage: ResEncStage, kernel: int, before: int, after: int) -> _Layer:
    """A convolution with its norm and nonlinearity, at the resolution of a stage."""
    weights = kernel * before * after
    activations = ACTIVATIONS_PER_CONV * after
    return _Layer(math.prod(stage.reduction), weights + 2 * after, 2 * weights, activations)


def _decoder_layers(stages: Sequence[ResEncStage]) -> list[_Layer]:
    """Of each level a transposed convolution, and a convolution of its map beside the skip's."""
    layers = []
    for own, below in pairwise(stages):
        width, up = own.out_channels, below.out_channels * own.out_channels
        layers += [
            # The map that it makes is kept once more, beside the skip.
            _Layer(
                math.prod(own.reduction),
                math.prod(below.stride) * up + width,
                2 * up,
                2 * width,
            ),
            _convolution(own, math.prod(own.kernel), 2 * width, width),
        ]
    return layers


def _stem_layers(stages: Sequence[ResEncStage], token_width: int) -> list[_Layer]:
    """The convolutions of a stem, and the one that joins the tokens."""
    first, last = stages[0], stages[-1]
    width = last.out_channels
    return [
        _convolution(first, math.prod(first.kernel), 1, first.in_channels),
        *(_convolution(stage, *layer) for stage in stages for layer in stage.convolutions),
        _convolution(last, 1, token_width + width, width),
    ]


def _kernel(step: Triple) -> Triple:
    """Kernel at a resolution that is left by `step`: an axis that is not reduced yet has thick
    slices and is not convolved.
    """
    return triple(3 if side > 1 else 1 for side in step)
