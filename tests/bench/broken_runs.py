"""Deliberate faults of a pretraining run, one function each, which monitoring has to notice.

Each puts one wrong part into a run's objective or sampler while it is active; monitoring then
measures the broken run itself, as it would if the mistake were in the code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_pipeline.models.vit import ViTEncoder
from ssl_pipeline.objectives import losses
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.term_inputs import Crops, TermMetadata
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.subject_contrast import SubjectContrast
from ssl_pipeline.types import triple
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.crops import Batch
from ssl_pipeline.views.patches import gather_tokens, patch_centres_mm
from ssl_pipeline.views.sample import Sample
from ssl_pipeline.views.sampler import Sampler


@contextmanager
def nothing(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """No fault: the run as it is."""
    yield


@contextmanager
def no_negatives(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """Positives attract, without any negatives, in both terms of contrast."""

    def subjects(
        term: SubjectContrast, first: Tensor, second: Tensor, metadata: TermMetadata
    ) -> Tensor:
        similarity = (normalize(first, dim=1) * normalize(second, dim=1)).sum(dim=1)
        return -similarity.mean() / term.temperature

    def places(
        anchor: Tensor, other: Tensor, found: losses.TokenMatches, temperature: float
    ) -> Tensor:
        mate = gather_tokens(normalize(other.float(), dim=-1), found.positive_index)
        similarity = (normalize(anchor.float(), dim=-1) * mate).sum(dim=-1)
        return torch.where(found.is_usable, -similarity / temperature, 0).sum()

    with (
        patch.object(SubjectContrast, "loss", subjects),
        patch.object(losses, "local_contrast_loss", places),
    ):
        yield


@contextmanager
def shared_intensity(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """Both views of a sample get the intensity parameters that were drawn for the first."""
    drawn = sampler._draw_sample

    def shared(*args: object) -> Sample:
        sample = drawn(*args)
        names = ("intensity_params", "bias_field")
        both = {name: np.stack([getattr(sample.params, name)[0]] * 2) for name in names}
        noise_seeds = sample.params.noise_seeds[[0, 0]]
        return replace(sample, params=replace(sample.params, **both, noise_seeds=noise_seeds))

    with patch.object(sampler, "_draw_sample", shared):
        yield


@contextmanager
def padding_in_the_loss(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """Every hidden voxel has the same weight: body, air, and padding."""
    count, loss_sum = Reconstruction.count, Reconstruction._loss_sum

    def whole(crops: Crops) -> Crops:
        batch = crops.batch
        ones = {name: torch.ones_like(getattr(batch, name)) for name in ("valid", "body_share")}
        return replace(
            crops, batch=replace(batch, **ones, valid_share=torch.ones_like(batch.valid_share))
        )

    with (
        patch.object(Reconstruction, "count", lambda term, crops: count(term, whole(crops))),
        patch.object(
            Reconstruction,
            "_loss_sum",
            lambda term, crops, *decoded: loss_sum(term, whole(crops), *decoded),
        ),
    ):
        yield


@contextmanager
def same_subject_negatives(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """All other samples of a step are negatives, those of the same subject too."""

    def everybody(
        term: SubjectContrast, first: Tensor, second: Tensor, metadata: TermMetadata
    ) -> Tensor:
        places = torch.arange(len(first))
        known = places, metadata.features
        return losses.subject_contrast_loss(first, second, *known, term.temperature)

    with patch.object(SubjectContrast, "loss", everybody):
        yield


@contextmanager
def frozen_encoder(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """Heads and decoder learn; nothing reaches the encoder's parameters."""

    def encode(batch: Batch, images: Tensor) -> Tensor:
        return Objective.encode(objective, batch, images).detach()

    with patch.object(objective, "encode", encode):
        yield


@contextmanager
def absolute_positions(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """Tokens get their positions in the frame that both views share, not in their crop."""
    encoder = objective.encoder
    assert isinstance(encoder, ViTEncoder)

    def encode(batch: Batch, images: Tensor) -> Tensor:
        size = triple(images.shape[2:])
        places = patch_centres_mm(size, encoder.patch, batch.spacing_mm) + batch.start_mm[:, None]
        patches, _ = encoder._patches(images, batch.spacing_mm)
        seen = gather_tokens(patches, batch.visible)
        return encoder._forward_blocks(seen, gather_tokens(places, batch.visible))

    with patch.object(objective, "encode", encode):
        yield


@contextmanager
def nan_batch(objective: Objective, sampler: Sampler, at: int) -> Iterator[None]:
    """One sample of step `at` is nan."""
    drawn = sampler.batch

    def batch(step: int, part: slice = slice(None)) -> SampleBatch:
        samples = drawn(step, part)
        if step == at:
            samples.units[0] = torch.nan
        return samples

    with patch.object(sampler, "batch", batch):
        yield
