"""An objective: an encoder, the terms that it is trained by, and their weights.

One sparse pass of the encoder over both views serves every term. A term that an objective lacks has
no head and no cost.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.objectives.config import Contrast, Ramp, Reconstruction
from ssl_pipeline.objectives.terms import LocalContrastTerm, ReconstructionTerm, SubjectContrastTerm
from ssl_pipeline.views.crops import Batch


@dataclass(frozen=True)
class TermOutputs:
    """Outputs of a forward pass over a micro-batch, by the names of the terms."""

    sums: dict[str, Float[Tensor, ""]]  # empty from `forward_statistics`
    counts: dict[str, Float[Tensor, ""]]  # what the sums are sums over
    vectors: Float[Tensor, "views vector"] | None  # of the term between subjects
    subject: Int[Tensor, " samples"]
    metadata_features: Float[Tensor, "samples features"]  # by which subjects are similar


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
        self.reconstruction_term = (
            ReconstructionTerm(reconstruction, encoder) if reconstruction else None
        )
        self.subject_term = SubjectContrastTerm(contrast, encoder) if contrast else None
        self.local_term = LocalContrastTerm(contrast, encoder) if contrast else None

    def forward(self, batch: Batch, images: Float[Tensor, "views 1 z y x"]) -> TermOutputs:
        """Sums and counts of the terms over this part of a batch, and its vectors."""
        tokens = self.encode(batch, images)
        found = {name: term(batch, tokens) for name, term in self._summed_terms()}
        return TermOutputs(
            {name: total for name, (total, _) in found.items()},
            {name: count for name, (_, count) in found.items()},
            self.trained_subject_term(batch, tokens) if self.trained_subject_term else None,
            batch.meta.subject,
            batch.meta.metadata_features,
        )

    @torch.no_grad()
    def forward_statistics(
        self, batch: Batch, images: Float[Tensor, "views 1 z y x"]
    ) -> TermOutputs:
        """Counts and vectors alone; no pass of the encoder where no term needs vectors."""
        counts = {name: term.count(batch) for name, term in self._summed_terms()}
        vectors = (
            self.trained_subject_term(batch, self.encode(batch, images))
            if self.trained_subject_term
            else None
        )
        return TermOutputs({}, counts, vectors, batch.meta.subject, batch.meta.metadata_features)

    def term_weights(self, progress: float) -> dict[str, float]:
        """Weights of the terms after this fraction of a run."""
        weights = {}
        if self.reconstruction:
            weights["reconstruction"] = self.reconstruction.weight
        if self.contrast:
            factor = self.contrast_factor(progress)
            weights["local_contrast"] = factor * self.contrast.local_weight
            weights["subject_contrast"] = factor * self.contrast.subject_weight
        return weights

    @property
    def trained_subject_term(self) -> SubjectContrastTerm | None:
        """The term between subjects, where its weight is above 0.

        Without weight its head is not trained; monitoring still measures its projections.
        """
        return self.subject_term if self.contrast and self.contrast.subject_weight else None

    def contrast_factor(self, progress: float) -> float:
        """Factor of the contrast weights after this fraction of a run."""
        return self.ramp.factor(progress) if self.ramp else 1.0

    @torch.no_grad()
    def reconstruct(self, batch: Batch, images: Tensor) -> Float[Tensor, "views 1 z y x"] | None:
        """Crops with their hidden patches as decoded; None without a decoder."""
        if self.reconstruction_term is None:
            return None
        tokens = self.encode(batch, images)
        return self.reconstruction_term.reconstruct(batch, tokens)

    def encode(
        self, batch: Batch, images: Float[Tensor, "views 1 z y x"]
    ) -> Float[Tensor, "views visible dim"]:
        """The encoder's tokens of the visible patches of images."""
        factors = self.encoder.branch_factors(batch.meta.number, images.device)
        return self.encoder.forward_sparse(images, batch.spacing_mm, batch.visible, factors)

    def _summed_terms(self) -> list[tuple[str, ReconstructionTerm | LocalContrastTerm]]:
        named = {"reconstruction": self.reconstruction_term, "local_contrast": self.local_term}
        return [(name, term) for name, term in named.items() if term is not None]
