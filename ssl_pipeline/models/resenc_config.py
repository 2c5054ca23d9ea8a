"""Sizes of the convolutional backbone (section `model` of a study); imports no torch."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from ssl_pipeline.config.automatic import is_auto
from ssl_pipeline.models.backbone import Backbone
from ssl_pipeline.models.topology import Topology
from ssl_pipeline.types import Triple, triple

if TYPE_CHECKING:
    from ssl_pipeline.models.resenc import ResEncEncoder

# Channels of the first stage, doubled up to the second number; blocks of each stage, the last
# number for all that follow; width of a token. L is what nnU-Net's ResEnc presets are made of
# (M, L and XL differ in crop and batch alone); tiny is for a CPU.
PRESETS: dict[str, tuple[int, int, tuple[int, ...], int]] = {
    "tiny": (8, 64, (1,), 128),
    "S": (12, 96, (1,), 128),
    "L": (32, 320, (1, 3, 4, 6), 320),
}
ACTIVATIONS_PER_CONV = (
    3  # a convolution, its norm and its LeakyReLU keep so many of each one they make
)


@dataclass(frozen=True)
class ResEncStage:
    """Residual blocks of one resolution; triples are (z, y, x)."""

    in_channels: int  # channels that come in
    out_channels: int  # channels
    stride: Triple  # of the first block
    reduction: Triple  # voxels of the crop between neighbours
    kernel: Triple
    blocks: int

    @property
    def convolutions(self) -> list[Triple]:
        """Of each: voxels of its kernel, channels before and after it."""
        size, within = (
            math.prod(self.kernel),
            (math.prod(self.kernel), self.out_channels, self.out_channels),
        )
        shortcut = (
            [(1, self.in_channels, self.out_channels)]
            if self.in_channels != self.out_channels
            else []
        )
        rest = [within] * (2 * self.blocks - 1)
        return [(size, self.in_channels, self.out_channels), *shortcut, *rest]


class ResEnc(Backbone):
    """A residual convolutional encoder like nnU-Net's, for those who segment."""

    # Editors would otherwise not know which section one without a name is.
    model_config = ConfigDict(json_schema_extra={"required": ["name"]})
    min_tokens: ClassVar[int] = 2  # an instance norm of one voxel is zero, whatever it shows

    name: Literal["resenc"] = "resenc"
    preset: Literal["tiny", "S", "L"] = Field(
        "tiny", description="channels and blocks of the stages"
    )
    strides: tuple[Triple, ...] = Field(
        (),
        description="stride (z, y, x) of each stage, [1, 1, 1] of the first; patch_voxels is their"
        " product. Where none are given they follow from it",
    )
    kernel_sizes: tuple[Triple, ...] = Field(
        (), description="kernel (z, y, x) of each stage; given with strides, or not at all"
    )

    @model_validator(mode="after")
    def _strides_fit(self) -> "ResEnc":
        if len(self.strides) != len(self.kernel_sizes):
            raise ValueError(
                f"strides has {len(self.strides)} stages and kernel_sizes {len(self.kernel_sizes)}:"
                " give both for every stage, or neither"
            )
        product = self._topology.reduction if self.strides else self.patch_voxels
        if product != self.patch_voxels or (self.strides and max(self.strides[0]) > 1):
            raise ValueError(
                f"strides begins with {list(self.strides[0])} and its product is {list(product)}:"
                " begin with [1, 1, 1], and let patch_voxels be the product"
            )
        return self

    @field_validator("strides")
    @classmethod
    def _double(cls, strides: tuple[Triple, ...]) -> tuple[Triple, ...]:
        if any(step not in (1, 2) for stride in strides for step in stride):
            raise ValueError("strides has another number than 1 and 2: strides can only double")
        return strides

    @field_validator("kernel_sizes")
    @classmethod
    def _odd(cls, kernels: tuple[Triple, ...]) -> tuple[Triple, ...]:
        if any(side < 1 or side % 2 == 0 for kernel in kernels for side in kernel):
            raise ValueError("kernel_sizes has an even number: give odd ones, such as [1, 3, 3]")
        return kernels

    @field_validator("patch_voxels")
    @classmethod
    def _halved(cls, patch: Triple) -> Triple:
        if is_auto(patch):
            return patch
        if any(side < 1 or side & (side - 1) for side in patch) or max(patch) == 1:
            raise ValueError(
                f"patch_voxels is {list(patch)}, and strides can only double: give powers of two, "
                "such as [4, 8, 8]"
            )
        return patch

    @property
    def width(self) -> int:
        """Numbers of a token."""
        return PRESETS[self.preset][3]

    @property
    def stages(self) -> list[ResEncStage]:
        """From full resolution to one voxel a patch."""
        first, widest, blocks, _ = PRESETS[self.preset]
        stages, before, reduction = [], first, (1, 1, 1)
        for level, (stride, kernel) in enumerate(zip(*self._topology, strict=True)):
            width = min(first * 2**level, widest)
            reduction = triple(a * b for a, b in zip(reduction, stride, strict=True))
            count = blocks[min(level, len(blocks) - 1)]
            stages.append(ResEncStage(before, width, stride, reduction, kernel, count))
            before = width
        return stages

    @property
    def _topology(self) -> Topology:
        """Strides and kernels as given, or as the patch suggests.

        As in nnU-Net, an axis of thick slices (a short side of the patch) waits: it is neither
        halved nor convolved before the others have come to its spacing.
        """
        if self.strides:
            return Topology(self.strides, self.kernel_sizes)
        halvings = [side.bit_length() - 1 for side in self.patch_voxels]
        deepest, strides, kernels = max(halvings), [], []
        for level in range(deepest + 1):
            waits = [level - (deepest - count) for count in halvings]  # below 0: still waiting
            strides.append(triple(2 if after > 0 else 1 for after in waits))
            kernels.append(triple(3 if after >= 0 else 1 for after in waits))
        return Topology(tuple(strides), tuple(kernels))

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of the stages, and the width of a token for the last."""
        return (*(stage.out_channels for stage in self.stages[:-1]), self.width)

    @property
    def parameter_count(self) -> int:
        """Trainable parameters."""
        last = self.stages[-1]
        layers = [self._stem, *(layer for stage in self.stages for layer in stage.convolutions)]
        convolved = sum(size * before * after + 2 * after for size, before, after in layers)
        return convolved + (last.out_channels + 3) * self.width

    def forward_flops(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Two operations a parameter of a convolution and voxel, whether it is seen or not."""
        stages = self.stages
        work = self._stem[0] * self._stem[2] * math.prod(crop_voxels)
        for stage in stages:
            voxels = math.prod(crop_voxels) // math.prod(stage.reduction)
            work += voxels * sum(math.prod(layer) for layer in stage.convolutions)
        return 2 * (work + visible_tokens * stages[-1].out_channels * self.width)

    def activation_count(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Those of the convolutions, at all voxels."""
        made = math.prod(crop_voxels) * self._stem[2]
        for stage in self.stages:
            voxels = math.prod(crop_voxels) // math.prod(stage.reduction)
            made += voxels * sum(after for _, _, after in stage.convolutions)
        return ACTIVATIONS_PER_CONV * made

    @property
    def _stem(self) -> Triple:
        """The first convolution, like one of `Stage.convolutions`."""
        first = self.stages[0]
        return math.prod(first.kernel), 1, first.in_channels

    def build(self) -> "ResEncEncoder":
        """The encoder, its weights drawn from torch's global generator."""
        from ssl_pipeline.models.resenc import ResEncEncoder

        return ResEncEncoder(self)
