"""An objective: an encoder, and the terms that it is trained by with their heads.

One pass of the encoder over both views serves every term that uses such a pass.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from ssl_pipeline.models.encoder import CropFeatures, Encoder
from ssl_pipeline.models.unet_decoder import PretrainedNetwork, UNetDecoder
from ssl_pipeline.objectives.teacher import TeacherNetwork
from ssl_pipeline.objectives.term_inputs import (
    Crops,
    EncoderOutputs,
    EncoderPass,
    Images,
    LocalTokens,
    Scalar,
    TermMetadata,
    Tokens,
    Vectors,
    term_metadata,
)
from ssl_pipeline.objectives.terms.distillation import DistillationTerm
from ssl_pipeline.objectives.terms.term import UNET_PASSES, SummedTerm, Term, VectorTerm
from ssl_pipeline.views.crops import Batch


@dataclass(frozen=True)
class TermOutputs:
    """Outputs of a forward pass over a micro-batch, by the names of the terms."""

    sums: dict[str, Tensor]  # of summed terms; empty from `forward_statistics`
    counts: dict[str, Tensor]  # what the sums are sums over
    vectors: dict[str, Tensor]  # (views, vector) of trained vector terms
    metadata: TermMetadata
    # Of the teacher's outputs, by the names of the terms of self-distillation.
    teacher_sums: dict[str, Tensor]


class Objective(nn.Module):
    """A list of terms on one encoder; each term has its name once."""

    def __init__(
        self, encoder: Encoder, terms: Sequence[Term], teacher_momentum: float = 0.0
    ) -> None:
        """`teacher_momentum` is that of the teacher of terms of self-distillation."""
        super().__init__()
        self.encoder, self.terms = encoder, tuple(terms)
        self.heads = nn.ModuleDict({term.name: term.build_head(encoder) for term in terms})
        self.summed_terms = tuple(term for term in terms if isinstance(term, SummedTerm))
        self.vector_terms = tuple(term for term in terms if isinstance(term, VectorTerm))
        self.passes = frozenset[EncoderPass]().union(*(term.passes for term in terms))
        self.decoder = UNetDecoder(encoder) if self.passes & UNET_PASSES else None
        distilled = [term for term in terms if isinstance(term, DistillationTerm)]
        self.teacher = (
            TeacherNetwork(encoder, dict(self.heads.items()), distilled, teacher_momentum)
            if distilled
            else None
        )
        # As it is now: random, or with the weights that the run starts from.
        self.initial_encoder = (
            deepcopy(encoder).requires_grad_(False) if "initial" in self.passes else None
        )
        # Without weight a vector term is not trained; monitoring still measures its vectors.
        self.trained_vector_terms = tuple(term for term in self.vector_terms if term.weight)

    @property
    def network(self) -> PretrainedNetwork:
        """What a run is for: the encoder, and the decoder where one is trained along."""
        return PretrainedNetwork(self.encoder, self.decoder)

    def forward(self, batch: Batch, images: Images) -> TermOutputs:
        """Sums and counts of the terms over this part of a batch, and its vectors."""
        crops = self.crops(batch)
        outputs = self.encode_crops(crops, images, self.passes)
        found = {
            term.name: term.sum_and_count(self.heads[term.name], crops, outputs)
            for term in self.summed_terms
        }
        return TermOutputs(
            {name: total for name, (total, _) in found.items()},
            {name: count for name, (_, count) in found.items()},
            self._vectors(crops, outputs.tokens),
            term_metadata(batch),
            {name: targets.output_sum for name, targets in outputs.targets.items()},
        )

    @torch.no_grad()
    def forward_statistics(self, batch: Batch, images: Images) -> TermOutputs:
        """Counts and vectors alone; no pass of the encoder where no term needs vectors."""
        crops = self.crops(batch)
        counts = {term.name: term.count(crops) for term in self.summed_terms}
        vectors = (
            self._vectors(crops, self.encode(batch, images)) if self.trained_vector_terms else {}
        )
        return TermOutputs({}, counts, vectors, term_metadata(batch), {})

    def mean_losses(self, outputs: TermOutputs) -> dict[str, Tensor]:
        """The losses of a single batch by term, with their graphs."""
        losses = {
            name: total / outputs.counts[name].clamp(min=1) for name, total in outputs.sums.items()
        }
        for term in self.trained_vector_terms:
            first, second = outputs.vectors[term.name].chunk(2)
            losses[term.name] = self.vector_loss(term, first, second, outputs.metadata)
        return losses

    def update_teacher(self, output_means: Mapping[str, Tensor], progress: float) -> None:
        """Let the teacher, where there is one, follow a step that ends after this progress.

        `output_means` are those of its outputs over the whole batch.
        """
        if self.teacher:
            self.teacher.update(self.encoder, dict(self.heads.items()), output_means, progress)

    def term_weights(self, progress: float) -> dict[str, float]:
        """Weights of the terms after this fraction of a run."""
        return {term.name: term.ramp_factor(progress) * term.weight for term in self.terms}

    def ramp_factor(self, progress: float) -> float:
        """The smallest factor of a term's weight after this fraction of the run."""
        return min(term.ramp_factor(progress) for term in self.terms)

    def vector_loss(
        self, term: VectorTerm, first: Vectors, second: Vectors, metadata: TermMetadata
    ) -> Scalar:
        """The loss of a vector term, which gets its own columns of the metadata alone."""
        return term.loss(first, second, self.metadata_of(term, metadata))

    def metadata_of(self, term: Term, metadata: TermMetadata) -> TermMetadata:
        """The metadata with the columns of one term alone."""
        end = list(accumulate(each.metadata_width for each in self.terms))[self.terms.index(term)]
        own = slice(end - term.metadata_width, end)
        return replace(
            metadata,
            features=metadata.features[:, own],
            second_features=metadata.second_features[:, own],
        )

    @torch.no_grad()
    def reconstruct(self, batch: Batch, images: Images) -> Images | None:
        """Crops with their hidden patches as a term predicts them; None where no term does."""
        crops = self.crops(batch)
        outputs = self.encode_crops(crops, images, {"sparse", *self.passes})
        made = (term.reconstruct(self.heads[term.name], crops, outputs) for term in self.terms)
        return next((crop for crop in made if crop is not None), None)

    def encode_crops(
        self, crops: Crops, images: Images, passes: Collection[EncoderPass]
    ) -> EncoderOutputs:
        """What the encoder gives of images in these passes; what was not asked for is empty."""
        batch, wanted = crops.batch, frozenset(passes)
        tokens = local = initial = images.new_empty(len(images), 0, 0)
        maps, sparse_unet, dense_unet = [], [], []
        if wanted & {"sparse", "sparse_unet"}:
            sparse = self.encode_visible(batch, images)
            tokens = sparse.tokens
            if self.decoder and "sparse_unet" in wanted:
                sparse_unet = self.decoder.decode(sparse, images, batch.visible)
        if wanted & {"dense", "dense_unet"}:
            dense = self.encoder.forward_features(images, batch.spacing_mm)
            maps = self.encoder.pyramid(dense, images)
            if self.decoder and "dense_unet" in wanted:
                dense_unet = [*self.decoder.decode(dense, images), maps[-1]]
        if "local" in wanted and batch.local.shape[1]:
            local = self._encode_local(batch, images)
        targets = self.teacher(crops, images) if self.teacher and "teacher" in wanted else {}
        if self.initial_encoder and "initial" in wanted:
            initial = self._encode_initially(batch, images)
        return EncoderOutputs(tokens, local, maps, sparse_unet, dense_unet, targets, initial)

    def encode(self, batch: Batch, images: Images) -> Tokens:
        """The encoder's tokens of the visible patches of images."""
        return self.encode_visible(batch, images).tokens

    def encode_visible(self, batch: Batch, images: Images) -> CropFeatures:
        """What the encoder's sparse pass gives of the visible patches of images."""
        factors = self.encoder.branch_factors(batch.meta.number, images.device)
        return self.encoder.forward_features(images, batch.spacing_mm, batch.visible, factors)

    @torch.no_grad()
    def _encode_initially(self, batch: Batch, images: Images) -> Tokens:
        """Tokens of the visible patches by the encoder that the run started from."""
        assert self.initial_encoder
        found = self.initial_encoder.forward_features(images, batch.spacing_mm, batch.visible)
        return found.tokens

    def _encode_local(self, batch: Batch, images: Images) -> LocalTokens:
        """Tokens of the local crops of each view, one after the other."""
        number = batch.local.shape[1]
        factors = self.encoder.branch_factors(batch.meta.number, images.device)
        return self.encoder.forward_sparse(
            images.repeat_interleave(number, dim=0),
            batch.spacing_mm.repeat_interleave(number, dim=0),
            batch.local.flatten(0, 1),
            None if factors is None else factors.repeat_interleave(number, dim=0),
        )

    def crops(self, batch: Batch) -> Crops:
        """The crops of a batch, cut into the encoder's patches."""
        return Crops(batch, self.encoder.patch)

    def _vectors(self, crops: Crops, tokens: Tokens) -> dict[str, Tensor]:
        return {
            term.name: term.vectors(self.heads[term.name], crops, tokens)
            for term in self.trained_vector_terms
        }
