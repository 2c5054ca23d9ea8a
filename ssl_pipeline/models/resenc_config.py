"""Sizes of the convolutional backbone (section `model` of a study); imports no torch."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator

from ssl_pipeline.models.backbone import Backbone
from ssl_pipeline.views.config import Triple

if TYPE_CHECKING:
    from ssl_pipeline.models.resenc import ResEncEncoder

# Channels of the first stage, doubled up to the second number; blocks of each stage, the last
# number for all that follow; width of a token. L is what nnU-Net's ResEnc presets are made of
# (M, L and XL differ in crop and batch alone); tiny is for a CPU.
SIZES: dict[str, tuple[int, int, tuple[int, ...], int]] = {
    "tiny": (8, 64, (1,), 128),
    "L": (32, 320, (1, 3, 4, 6), 320),
}
CONV_NUMBERS = 3  # a convolution, its norm and its LeakyReLU keep so many of each one they make


@dataclass(frozen=True)
class Stage:
    """Residual blocks of one resolution; triples are (z, y, x)."""

    before: int  # channels that come in
    width: int  # channels
    stride: Triple  # of the first block
    step: Triple  # voxels of the crop between neighbours
    kernel: Triple
    blocks: int

    @property
    def convolutions(self) -> list[tuple[int, int, int]]:
        """Of each: voxels of its kernel, channels before and after it."""
        size, within = math.prod(self.kernel), (math.prod(self.kernel), self.width, self.width)
        shortcut = [(1, self.before, self.width)] if self.before != self.width else []
        rest = [within] * (2 * self.blocks - 1)
        return [(size, self.before, self.width), *shortcut, *rest]


class ResEnc(Backbone):
    """A residual convolutional encoder like nnU-Net's, for those who segment."""

    # Editors would otherwise not know which section one without a name is.
    model_config = ConfigDict(json_schema_extra={"required": ["name"]})
    least_tokens: ClassVar[int] = 2  # an instance norm of one voxel is zero, whatever it shows

    name: Literal["resenc"] = "resenc"
    preset: Literal["tiny", "L"] = Field("tiny", description="channels and blocks of the stages")

    @field_validator("patch_voxels")
    @classmethod
    def _halved(cls, patch: Triple) -> Triple:
        if any(side < 1 or side & (side - 1) for side in patch) or max(patch) == 1:
            raise ValueError(
                f"patch_voxels is {list(patch)}, and strides can only double: give powers of two, "
                "such as [4, 8, 8]"
            )
        return patch

    @property
    def width(self) -> int:
        """Numbers of a token."""
        return SIZES[self.preset][3]

    @property
    def stages(self) -> list[Stage]:
        """From full resolution to one voxel a patch.

        As in nnU-Net, an axis of thick slices (a short side of the patch) waits: it is neither
        halved nor convolved before the others have come to its spacing.
        """
        first, widest, blocks, _ = SIZES[self.preset]
        halvings = [side.bit_length() - 1 for side in self.patch_voxels]
        deepest, stages, before = max(halvings), [], first
        for level in range(deepest + 1):
            waits = [level - (deepest - count) for count in halvings]  # below 0: still waiting
            width = min(first * 2**level, widest)
            stages.append(
                Stage(
                    before,
                    width,
                    stride=_triple([2 if after > 0 else 1 for after in waits]),
                    step=_triple([2 ** max(after, 0) for after in waits]),
                    kernel=_triple([3 if after >= 0 else 1 for after in waits]),
                    blocks=blocks[min(level, len(blocks) - 1)],
                )
            )
            before = width
        return stages

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        last = self.stages[-1]
        layers = [self._stem, *(layer for stage in self.stages for layer in stage.convolutions)]
        convolved = sum(size * before * after + 2 * after for size, before, after in layers)
        return convolved + (last.width + 3) * self.width

    def forward_flops(self, seen: int, crop_voxels: Triple) -> int:
        """Two operations a parameter of a convolution and voxel, whether it is seen or not."""
        stages = self.stages
        work = self._stem[0] * self._stem[2] * math.prod(crop_voxels)
        for stage in stages:
            voxels = math.prod(crop_voxels) // math.prod(stage.step)
            work += voxels * sum(math.prod(layer) for layer in stage.convolutions)
        return 2 * (work + seen * stages[-1].width * self.width)

    def kept_numbers(self, seen: int, crop_voxels: Triple) -> int:
        """Those of the convolutions, at all voxels."""
        made = math.prod(crop_voxels) * self._stem[2]
        for stage in self.stages:
            voxels = math.prod(crop_voxels) // math.prod(stage.step)
            made += voxels * sum(after for _, _, after in stage.convolutions)
        return CONV_NUMBERS * made

    @property
    def _stem(self) -> tuple[int, int, int]:
        """The first convolution, like one of `Stage.convolutions`."""
        first = self.stages[0]
        return math.prod(first.kernel), 1, first.before

    def build(self) -> "ResEncEncoder":
        """The encoder, its weights drawn from torch's global generator."""
        from ssl_pipeline.models.resenc import ResEncEncoder

        return ResEncEncoder(self)


def _triple(numbers: list[int]) -> Triple:
    z, y, x = numbers
    return z, y, x
