"""An objective: an encoder, the terms that it is trained by, and their weights.

One sparse pass of the encoder over both views serves every term. A term that an objective lacks has
no head and costs nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.objectives.config import Contrast, Ramp, Reconstruction
from ssl_pipeline.objectives.terms import Places, Rebuilding, Subjects
from ssl_pipeline.views.cut import Batch


@dataclass(frozen=True)
class Said:
    """What a pass says of its part of a batch; names are those of the terms."""

    sums: dict[str, Float[Tensor, ""]]  # none of a glance
    counts: dict[str, Float[Tensor, ""]]  # what the sums are sums over
    vectors: Float[Tensor, "views vector"] | None  # of the term between subjects
    subject: Int[Tensor, " pairs"]
    traits: Float[Tensor, "pairs traits"]  # what makes subjects alike


class Objective(nn.Module):
    """Reconstruction and contrast on one encoder; either may be None."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        reconstruction: Reconstruction | None,
        contrast: Contrast | None,
        ramp: Ramp | None,
    ) -> None:
        super().__init__()
        self.encoder, self.ramp = encoder, ramp
        self.reconstruction, self.contrast = reconstruction, contrast
        self.rebuilding = Rebuilding(reconstruction, encoder) if reconstruction else None
        self.subjects = Subjects(contrast, encoder) if contrast else None
        self.places = Places(contrast, encoder) if contrast else None

    def forward(self, batch: Batch, images: Float[Tensor, "views 1 z y x"]) -> Said:
        """Sums and counts of the terms over this part of a batch, and its vectors."""
        tokens = self.tokens(batch, images)
        found = {name: term(batch, tokens) for name, term in self._summed()}
        return Said(
            {name: total for name, (total, _) in found.items()},
            {name: count for name, (_, count) in found.items()},
            self.between(batch, tokens) if self.between else None,
            batch.subject,
            batch.traits,
        )

    @torch.no_grad()
    def glance(self, batch: Batch, images: Float[Tensor, "views 1 z y x"]) -> Said:
        """Counts and vectors alone; no pass of the encoder where no term needs vectors."""
        counts = {name: term.count(batch) for name, term in self._summed()}
        vectors = self.between(batch, self.tokens(batch, images)) if self.between else None
        return Said({}, counts, vectors, batch.subject, batch.traits)

    def weights(self, share: float) -> dict[str, float]:
        """Weights of the terms after this share of a run."""
        weights = {}
        if self.reconstruction:
            weights["reconstruction"] = self.reconstruction.weight
        if self.contrast:
            weights["local"] = self.factor(share) * self.contrast.local_weight
            weights["global"] = self.factor(share) * self.contrast.global_weight
        return weights

    @property
    def between(self) -> Subjects | None:
        """The term between subjects, where it weighs anything.

        Without weight its head is not trained, and still shows how embeddings fill their space.
        """
        return self.subjects if self.contrast and self.contrast.global_weight else None

    def factor(self, share: float) -> float:
        """How much of its weight contrast has after this share of a run."""
        return self.ramp.at(share) if self.ramp else 1.0

    @torch.no_grad()
    def rebuilt(self, batch: Batch, images: Tensor) -> Float[Tensor, "views 1 z y x"] | None:
        """Crops with their hidden patches as the decoder says them; None without a decoder."""
        if self.rebuilding is None:
            return None
        tokens = self.tokens(batch, images)
        return self.rebuilding.rebuilt(batch, tokens)

    def tokens(
        self, batch: Batch, images: Float[Tensor, "views 1 z y x"]
    ) -> Float[Tensor, "views kept dim"]:
        """The encoder's tokens of what it sees of images."""
        return self.encoder.sparse(images, batch.spacing_mm, batch.visible, batch.survive)

    def _summed(self) -> list[tuple[str, Rebuilding | Places]]:
        named = {"reconstruction": self.rebuilding, "local": self.places}
        return [(name, term) for name, term in named.items() if term is not None]
