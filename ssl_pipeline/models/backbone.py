"""The interface of backbone sections without torch: sizes, parameters, operations, memory."""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ssl_pipeline.config.automatic import AutoTriple
from ssl_pipeline.config.section import Section
from ssl_pipeline.types import Triple, triple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssl_pipeline.models.encoder import Encoder
    from ssl_pipeline.models.resenc_config import ResEncStage


class Backbone(Section, ABC):
    """The section of an encoder, from which estimates and evaluation get its properties."""

    min_tokens: ClassVar[int] = 1  # of a crop, below which a pass means nothing
    is_transformer: ClassVar[bool] = False  # whether its blocks are attention and an MLP

    patch_voxels: AutoTriple = Field(
        (8, 8, 8),
        description="size of a token (z, y, x), in voxels; auto plans it from the spacing",
    )

    def grid(self, crop_voxels: Triple) -> Triple:
        """Patches of a whole crop along (z, y, x)."""
        return triple(s // p for s, p in zip(crop_voxels, self.patch_voxels, strict=True))

    def token_count(self, crop_voxels: Triple) -> int:
        """Tokens of a whole crop."""
        return math.prod(self.grid(crop_voxels))

    @property
    @abstractmethod
    def width(self) -> int:
        """Dimension of a token."""

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of the maps of `Encoder.pyramid`."""
        return (self.width,)

    @property
    def stages(self) -> "Sequence[ResEncStage]":
        """Convolutional stages, whose maps a U-Net's decoder joins; a transformer has none."""
        return ()

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """Trainable parameters."""

    @abstractmethod
    def forward_flops(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Operations of a forward pass that sees so many tokens of a crop."""

    @abstractmethod
    def activation_count(self, visible_tokens: int, crop_voxels: Triple) -> int:
        """Activations that such a pass stores for the backward pass."""

    @abstractmethod
    def build(self) -> "Encoder":
        """The encoder, its weights drawn from torch's global generator."""
