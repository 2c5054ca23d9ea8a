"""The terms that objectives are made of, each with the head that it needs.

A term that is a mean over voxels or tokens says its sum and its count apart, of the part of a batch
that it is given; `step` makes means of whole batches of them. The term between subjects needs all
vectors of a batch at once, so it is given them by `step`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline.models.decoder import Decoder
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.models.heads import projection
from ssl_pipeline.objectives.config import Contrast, Reconstruction
from ssl_pipeline.objectives.losses import (
    Matches,
    masked_huber,
    matches,
    patch_units,
    place_contrast,
)
from ssl_pipeline.views.config import Triple
from ssl_pipeline.views.cut import Batch
from ssl_pipeline.views.tokens import centres_mm, gather, patchify, pool, unpatchify


class Rebuilding(nn.Module):
    """Masked reconstruction of the clean crop; weight 1 inside the body, less outside."""

    def __init__(self, section: Reconstruction, encoder: Encoder) -> None:
        super().__init__()
        self.section, self.patch = section, encoder.patch
        width = section.decoder_width or encoder.dim // 2
        self.voxels = self.patch[0] * self.patch[1] * self.patch[2]
        self.decoder = Decoder(encoder.dim, self.voxels, width=width, depth=section.decoder_depth)

    def count(self, batch: Batch) -> Float[Tensor, ""]:
        """Weight of all voxels to rebuild."""
        chosen = self._chosen(batch)
        seen = batch.measured.gather(1, chosen) * self._weight(batch, chosen)
        return seen.sum() * self.voxels

    def forward(
        self, batch: Batch, tokens: Float[Tensor, "views kept dim"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum of the losses of the voxels to rebuild, and their weight."""
        chosen = self._chosen(batch)
        clean, valid = self._clean(batch, chosen)
        mean, unit = self._units(clean, valid)
        total = masked_huber(
            self._decode(batch, tokens, chosen).float(),
            (clean - mean) / unit,
            valid * self._weight(batch, chosen)[..., None],
        )
        return total, self.count(batch)

    def rebuilt(
        self, batch: Batch, tokens: Float[Tensor, "views kept dim"]
    ) -> Float[Tensor, "views 1 z y x"]:
        """Crops with their hidden patches as the decoder says them.

        Softly normed patches get the mean and spread of the scan's own.
        """
        mean, unit = self._units(*self._clean(batch, batch.hidden))
        said = self._decode(batch, tokens, batch.hidden).float() * unit + mean
        patches = patchify(batch.clean, self.patch)
        where = batch.hidden[..., None].expand_as(said)
        return unpatchify(patches.scatter(1, where, said), _size(batch), self.patch)

    def _chosen(self, batch: Batch) -> Tensor:
        """The hidden tokens that are decoded: the first of them, which are in random order."""
        return batch.hidden[:, : max(1, round(self.section.decode * batch.hidden.shape[1]))]

    def _clean(self, batch: Batch, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels of the chosen patches, and which of them are valid."""
        both = (batch.clean, batch.valid[:, None])
        clean, valid = (gather(patchify(each, self.patch), chosen) for each in both)
        return clean, valid

    def _units(self, clean: Tensor, valid: Tensor) -> tuple[Tensor, Tensor] | tuple[float, float]:
        """What the decoder's numbers are about, and in units of."""
        return patch_units(clean, valid) if self.section.soft_norm else (0.0, 1.0)

    def _weight(self, batch: Batch, chosen: Tensor) -> Tensor:
        inside = batch.body.gather(1, chosen) >= 0.5
        return torch.where(inside, 1.0, self.section.background)

    def _decode(self, batch: Batch, tokens: Tensor, wanted: Tensor) -> Tensor:
        places = centres_mm(_size(batch), self.patch, batch.spacing_mm)
        decoded: Tensor = self.decoder(tokens, batch.visible, wanted, places)
        return decoded


class Subjects(nn.Module):
    """One vector a view, by which views of other subjects are told apart."""

    def __init__(self, section: Contrast, encoder: Encoder) -> None:
        super().__init__()
        self.head = projection(encoder.dim, section.dim)

    def forward(
        self, batch: Batch, tokens: Float[Tensor, "views kept dim"]
    ) -> Float[Tensor, "views vector"]:
        """Projections of the mean over the seen tokens inside the body."""
        projected: Tensor = self.head(pooled(batch, tokens))
        return projected


class Places(nn.Module):
    """Tokens of one place in two views agree, and differ from far ones of the same scan."""

    def __init__(self, section: Contrast, encoder: Encoder) -> None:
        super().__init__()
        self.section, self.patch = section, encoder.patch
        self.head = projection(encoder.dim, section.dim)

    def count(self, batch: Batch) -> Float[Tensor, ""]:
        """Anchors that have a partner and a negative, in both directions."""
        return _usable(*self._matches(batch))

    def forward(
        self, batch: Batch, tokens: Float[Tensor, "views kept dim"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Sum of the losses of those anchors, and how many they are."""
        return self.between(batch, self.head(tokens))

    def between(
        self, batch: Batch, vectors: Float[Tensor, "views kept vector"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The same, of projected tokens."""
        first, second = vectors.chunk(2)
        there, back = self._matches(batch)
        temperature = self.section.temperature
        total = place_contrast(first, second, there, temperature)
        total = total + place_contrast(second, first, back, temperature)
        return total, _usable(there, back)

    def _matches(self, batch: Batch) -> tuple[Matches, Matches]:
        """Of the seen tokens of first views to those of second ones, and back."""
        relative = gather(centres_mm(_size(batch), self.patch, batch.spacing_mm), batch.visible)
        places = relative + batch.start_mm[:, None]
        patch_mm = torch.stack([batch.spacing_mm[:, i] * p for i, p in enumerate(self.patch)], 1)
        first, second = (places / patch_mm[:, None]).chunk(2)
        distance = (first[:, :, None] - second[:, None]).abs().amax(dim=-1)
        dials = {
            "positive": self.section.positive_patches,
            "negative": self.section.negative_patches,
        }
        return matches(distance, **dials), matches(distance.transpose(1, 2), **dials)


def _usable(there: Matches, back: Matches) -> Float[Tensor, ""]:
    return (there.usable.sum() + back.usable.sum()).float()


def pooled(batch: Batch, tokens: Float[Tensor, "views kept dim"]) -> Float[Tensor, "views dim"]:
    """The mean over the seen tokens inside the body."""
    inside = batch.body.gather(1, batch.visible) >= 0.5
    return pool(tokens, inside.to(tokens.dtype))


def _size(batch: Batch) -> Triple:
    z, y, x = batch.clean.shape[2:]
    return z, y, x
