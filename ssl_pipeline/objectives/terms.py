"""An objective: an encoder, the heads that its terms need, and their weighted sum.

One sparse pass of the encoder over both views serves every term. A term that an objective lacks has
no head and costs nothing.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.models.decoder import Decoder
from ssl_pipeline.models.heads import projection
from ssl_pipeline.models.vit import ViTEncoder
from ssl_pipeline.objectives.config import Contrast, Ramp, Reconstruction
from ssl_pipeline.objectives.losses import masked_huber, place_contrast, subject_contrast
from ssl_pipeline.views.sampler import Batch
from ssl_pipeline.views.tokens import centres_mm, gather, patch_share, patchify, pool, unpatchify


@dataclass(frozen=True)
class Losses:
    """What a step optimises, and its parts by name (unweighted, detached)."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]


@runtime_checkable
class Ranks(Protocol):
    """What terms ask of the ranks that share a batch; the gradient stays each rank's own."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks."""

    def gather(self, values: Tensor) -> Tensor:
        """The rows of all ranks, in their order."""


class Objective(nn.Module):
    """Weighted sum of reconstruction and contrast; `reconstruction` or `contrast` may be None."""

    def __init__(
        self,
        encoder: ViTEncoder,
        *,
        reconstruction: Reconstruction | None,
        contrast: Contrast | None,
        ramp: Ramp | None,
    ) -> None:
        super().__init__()
        self.encoder, self.ramp = encoder, ramp
        self.reconstruction, self.contrast = reconstruction, contrast
        dim, patch = encoder.dim, encoder.patch
        if reconstruction is not None:
            width = reconstruction.decoder_width or dim // 2
            voxels = patch[0] * patch[1] * patch[2]
            self.decoder = Decoder(dim, voxels, width=width, depth=reconstruction.decoder_depth)
        if contrast is not None:
            self.global_head = projection(dim, contrast.dim)
            self.local_head = projection(dim, contrast.dim)

    def forward(
        self, batch: Batch, images: Float[Tensor, "views 1 z y x"], share: float, ranks: Ranks
    ) -> Losses:
        """Losses after `share` of the run, of the whole batch of all ranks.

        `batch` and its augmented `images` are this rank's part of it, and alone carry gradient.
        """
        tokens = self.encoder.sparse(images, batch.spacing_mm, batch.visible)
        parts: dict[str, Tensor] = {}
        total = tokens.new_zeros((), dtype=torch.float32)
        if self.reconstruction is not None:
            parts["reconstruction"] = self._rebuild(batch, tokens, ranks)
            total = total + self.reconstruction.weight * parts["reconstruction"]
        if self.contrast is not None:
            factor = self.ramp.at(share) if self.ramp else 1.0
            parts["global"] = self._between_subjects(batch, tokens, ranks)
            parts["local"] = self._between_places(batch, tokens, ranks)
            weighted = (
                self.contrast.global_weight * parts["global"]
                + self.contrast.local_weight * parts["local"]
            )
            total = total + factor * weighted
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    def _size(self, batch: Batch) -> tuple[int, int, int]:
        z, y, x = batch.clean.shape[2:]
        return z, y, x

    def _decode(self, batch: Batch, tokens: Tensor) -> Tensor:
        places = centres_mm(self._size(batch), self.encoder.patch, batch.spacing_mm)
        decoded: Tensor = self.decoder(tokens, batch.visible, places)
        return decoded

    def _rebuild(self, batch: Batch, tokens: Tensor, ranks: Ranks) -> Tensor:
        """Loss of hidden patches; weight 1 inside the body, less outside, 0 for padding."""
        assert self.reconstruction is not None
        patch = self.encoder.patch
        inside = patch_share(batch.foreground, patch) >= 0.5
        weight = torch.where(inside, 1.0, self.reconstruction.background)
        weight = weight.scatter(1, batch.visible, 0.0)
        voxels = patchify(batch.valid[:, None], patch) * weight[..., None]
        return masked_huber(
            self._decode(batch, tokens).float(),
            patchify(batch.clean, patch),
            voxels,
            summed=ranks.sum,
        )

    def _between_subjects(self, batch: Batch, tokens: Tensor, ranks: Ranks) -> Tensor:
        assert self.contrast is not None
        inside = patch_share(batch.foreground, self.encoder.patch).gather(1, batch.visible)
        projected = self.global_head(pool(tokens, (inside >= 0.5).to(tokens.dtype)))
        first, second = projected.chunk(2)
        return subject_contrast(
            ranks.gather(first),
            ranks.gather(second),
            ranks.gather(batch.subject),
            self.contrast.temperature,
        )

    def _between_places(self, batch: Batch, tokens: Tensor, ranks: Ranks) -> Tensor:
        assert self.contrast is not None
        first, second = self.local_head(tokens).chunk(2)
        distance = self._distance(batch)
        dials = {
            "positive": self.contrast.positive_patches,
            "negative": self.contrast.negative_patches,
            "temperature": self.contrast.temperature,
        }
        there = place_contrast(first, second, distance, summed=ranks.sum, **dials)
        back = place_contrast(second, first, distance.transpose(1, 2), summed=ranks.sum, **dials)
        return (there + back) / 2

    def _distance(self, batch: Batch) -> Float[Tensor, "pairs kept kept"]:
        """Chebyshev distances, in patches, of the seen tokens of first views to those of second."""
        patch = self.encoder.patch
        relative = gather(centres_mm(self._size(batch), patch, batch.spacing_mm), batch.visible)
        places = relative + batch.start_mm[:, None]
        patch_mm = batch.spacing_mm * torch.tensor(patch, device=places.device)
        first, second = (places / patch_mm[:, None]).chunk(2)
        return (first[:, :, None] - second[:, None]).abs().amax(dim=-1)

    @torch.no_grad()
    def rebuilt(self, batch: Batch, images: Tensor) -> Float[Tensor, "views 1 z y x"] | None:
        """Crops as the decoder rebuilds them, seen patches too; None without a decoder."""
        if self.reconstruction is None:
            return None
        tokens = self.encoder.sparse(images, batch.spacing_mm, batch.visible)
        return unpatchify(self._decode(batch, tokens), self._size(batch), self.encoder.patch)
