"""The terms of objectives, each with its head.

A term that is a mean over voxels or tokens returns its sum and its count over a micro-batch;
`backward` makes means of whole batches of them. The term between subjects needs all vectors of a
batch at once, so `backward` computes its loss.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.models.decoder import ReconstructionDecoder
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.models.heads import projection_head
from ssl_pipeline.objectives.config import Contrast, Reconstruction
from ssl_pipeline.objectives.losses import (
    TokenMatches,
    local_contrast_loss,
    masked_huber,
    match_tokens,
    patch_statistics,
)
from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.crops import Batch
from ssl_pipeline.views.patches import (
    gather_tokens,
    patch_centres_mm,
    patchify,
    pool_tokens,
    unpatchify,
)


class ReconstructionTerm(nn.Module):
    """Masked reconstruction of the clean crop; weight 1 inside the body, less outside."""

    def __init__(self, section: Reconstruction, encoder: Encoder) -> None:
        super().__init__()
        self.section, self.patch = section, encoder.patch
        width = section.decoder_width or encoder.dim // 2
        self.voxels = self.patch[0] * self.patch[1] * self.patch[2]
        self.decoder = ReconstructionDecoder(
            encoder.dim, self.voxels, width=width, depth=section.decoder_depth
        )

    def count(self, batch: Batch) -> Float[Tensor, ""]:
        """Weight of all voxels to reconstruct."""
        chosen = self._decoded_tokens(batch)
        weight = batch.valid_share.gather(1, chosen) * self._body_weight(batch, chosen)
        return weight.sum() * self.voxels

    def forward(
        self, batch: Batch, tokens: Float[Tensor, "views visible dim"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum of the losses of the voxels to reconstruct, and their weight."""
        chosen = self._decoded_tokens(batch)
        clean, valid = self._clean_patches(batch, chosen)
        mean, unit = self._patch_units(clean, valid)
        total = masked_huber(
            self._decode(batch, tokens, chosen).float(),
            (clean - mean) / unit,
            valid * self._body_weight(batch, chosen)[..., None],
        )
        return total, self.count(batch)

    def reconstruct(
        self, batch: Batch, tokens: Float[Tensor, "views visible dim"]
    ) -> Float[Tensor, "views 1 z y x"]:
        """Crops with their hidden patches as decoded.

        Normalized patches get the mean and deviation of the scan's own.
        """
        mean, unit = self._patch_units(*self._clean_patches(batch, batch.hidden))
        decoded = self._decode(batch, tokens, batch.hidden).float() * unit + mean
        patches = patchify(batch.clean, self.patch)
        where = batch.hidden[..., None].expand_as(decoded)
        return unpatchify(patches.scatter(1, where, decoded), _crop_size(batch), self.patch)

    def _decoded_tokens(self, batch: Batch) -> Tensor:
        """The hidden tokens that are decoded: the first of them, which are in random order."""
        return batch.hidden[:, : max(1, round(self.section.decode_ratio * batch.hidden.shape[1]))]

    def _clean_patches(self, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels of the chosen patches, and which of them are valid."""
        both = (batch.clean, batch.valid[:, None])
        clean, valid = (gather_tokens(patchify(each, self.patch), targets) for each in both)
        return clean, valid

    def _patch_units(
        self, clean: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor] | tuple[float, float]:
        """Offset and unit of the decoder's output."""
        return patch_statistics(clean, valid) if self.section.normalize_patches else (0.0, 1.0)

    def _body_weight(self, batch: Batch, targets: Tensor) -> Tensor:
        inside = batch.body_share.gather(1, targets) >= 0.5
        return torch.where(inside, 1.0, self.section.background_weight)

    def _decode(self, batch: Batch, tokens: Tensor, targets: Tensor) -> Tensor:
        places = patch_centres_mm(_crop_size(batch), self.patch, batch.spacing_mm)
        decoded: Tensor = self.decoder(tokens, batch.visible, targets, places)
        return decoded


class SubjectContrastTerm(nn.Module):
    """One projected vector per view, contrasted with those of other subjects."""

    def __init__(self, section: Contrast, encoder: Encoder) -> None:
        super().__init__()
        self.head = projection_head(encoder.dim, section.projection_dim)

    def forward(
        self, batch: Batch, tokens: Float[Tensor, "views visible dim"]
    ) -> Float[Tensor, "views vector"]:
        """Projections of the mean over the visible tokens inside the body."""
        projected: Tensor = self.head(pool_body(batch, tokens))
        return projected


class LocalContrastTerm(nn.Module):
    """Tokens of one location agree between views, and differ from distant ones of the scan."""

    def __init__(self, section: Contrast, encoder: Encoder) -> None:
        super().__init__()
        self.section, self.patch = section, encoder.patch
        self.head = projection_head(encoder.dim, section.projection_dim)

    def count(self, batch: Batch) -> Float[Tensor, ""]:
        """Anchors that have a partner and a negative, in both directions."""
        return _usable_count(*self._match_views(batch))

    def forward(
        self, batch: Batch, tokens: Float[Tensor, "views visible dim"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum of the losses of those anchors, and how many they are."""
        return self.contrast_vectors(batch, self.head(tokens))

    def contrast_vectors(
        self, batch: Batch, vectors: Float[Tensor, "views visible vector"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The same, of projected tokens."""
        first, second = vectors.chunk(2)
        there, back = self._match_views(batch)
        temperature = self.section.temperature
        total = local_contrast_loss(first, second, there, temperature)
        total = total + local_contrast_loss(second, first, back, temperature)
        return total, _usable_count(there, back)

    def _match_views(self, batch: Batch) -> tuple[TokenMatches, TokenMatches]:
        """Matches of the visible tokens of first views to those of second ones, and back."""
        relative = gather_tokens(
            patch_centres_mm(_crop_size(batch), self.patch, batch.spacing_mm), batch.visible
        )
        places = relative + batch.start_mm[:, None]
        patch_mm = torch.stack([batch.spacing_mm[:, i] * p for i, p in enumerate(self.patch)], 1)
        first, second = (places / patch_mm[:, None]).chunk(2)
        distance = (first[:, :, None] - second[:, None]).abs().amax(dim=-1)
        limits = {
            "positive": self.section.positive_patches,
            "negative": self.section.negative_patches,
        }
        forth = match_tokens(distance, **limits)
        return forth, match_tokens(distance.transpose(1, 2), **limits)


def _usable_count(forth: TokenMatches, back: TokenMatches) -> Float[Tensor, ""]:
    return (forth.is_usable.sum() + back.is_usable.sum()).float()


def pool_body(
    batch: Batch, tokens: Float[Tensor, "views visible dim"]
) -> Float[Tensor, "views dim"]:
    """The mean over the visible tokens inside the body."""
    inside = batch.body_share.gather(1, batch.visible) >= 0.5
    return pool_tokens(tokens, inside.to(tokens.dtype))


def _crop_size(batch: Batch) -> Triple:
    return triple(batch.clean.shape[2:])
