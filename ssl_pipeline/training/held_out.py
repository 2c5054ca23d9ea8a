"""Losses, retrieval and effective rank of an encoder on the bank of a domain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.monitoring.collapse import rankme
from ssl_pipeline.monitoring.shortcuts import retrieval_accuracy
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.term_inputs import TermMetadata, concatenate_metadata
from ssl_pipeline.objectives.terms.term import VectorTerm
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.training.domain_bank import (
    BANK_SEED,
    NO_LOSS_OF_DATA,
    TOTAL,
    DomainBank,
    DomainMeasure,
    Place,
)
from ssl_pipeline.types import Triple
from ssl_pipeline.views.augmentation import augmented_views
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler

MIN_CONTRASTED = 3  # places, for a loss between subjects without one of them


def freeze_bank(
    domain: dict[str, str],
    entries: Sequence[Entry],
    reader: CropReader,
    views: Views,
    patch: Triple,
    places: int,
) -> DomainBank:
    """A bank of so many places of these held-out volumes, as many of each subject as of others."""
    sampler = Sampler(entries, reader, views, patch, batch_size=1, seed=BANK_SEED)
    found = []
    for number in range(places):
        subject = number % len(sampler.subject_codes)
        index, start = sampler.find_block(number, subject)
        found.append(Place(volume=entries[index].sha256, subject=subject, start=start))
    return DomainBank(domain=domain, views=views, patch_voxels=patch, places=tuple(found))


def bank_sampler(
    bank: DomainBank,
    entries: Sequence[Entry],
    reader: CropReader,
    metadata_features: NDArray[np.float32] | None = None,
) -> Sampler:
    """The sampler of the bank's places, of which `entries` are the volumes that are there."""
    return Sampler(
        entries,
        reader,
        bank.views,
        bank.patch_voxels,
        batch_size=1,
        seed=bank.seed,
        metadata_features=metadata_features,
    )


@torch.no_grad()
def measure_bank(
    objective: Objective, bank: DomainBank, bank_sha256: str, sampler: Sampler, device: str
) -> DomainMeasure:
    """Each loss of an objective at the end of a run, at the places whose volumes are there."""
    objective.to(device).eval()
    index = {entry.sha256: number for number, entry in enumerate(sampler.entries)}
    places = [n for n, place in enumerate(bank.places) if place.volume in index]
    measured = [
        _measure_place(
            objective,
            sampler.batch_at(n, index[bank.places[n].volume], bank.places[n].start).to(device),
            bank,
        )
        for n in places
    ]
    losses = {
        term.name: [place.losses.get(term.name, math.nan) for place in measured]
        for term in objective.terms
        if not isinstance(term, VectorTerm)
    }
    for term in objective.trained_vector_terms:
        losses[term.name] = _vector_losses(objective, term, measured)
    weights = objective.term_weights(1.0)
    trained = [name for name in losses if weights[name] and name not in NO_LOSS_OF_DATA]
    # A term without a pair of patches at a place is none of its losses, whichever the encoder.
    losses[TOTAL] = [
        math.fsum(
            weights[name] * losses[name][n] for name in trained if not math.isnan(losses[name][n])
        )
        for n in range(len(measured))
    ]
    first, second = (torch.cat(each) for each in zip(*(p.pooled for p in measured), strict=True))
    return DomainMeasure(
        bank_sha256=bank_sha256,
        losses={name: _by_place(own, places, len(bank.places)) for name, own in losses.items()},
        retrieval_accuracy=_finite(retrieval_accuracy(first, second).score),
        rankme=_finite(rankme(first)),
        prediction_scores=_prediction_scores(objective, measured),
    )


@dataclass(frozen=True)
class _PlaceOutputs:
    """What an objective gives at one place."""

    losses: dict[str, float]  # of summed terms
    vectors: dict[str, tuple[Tensor, Tensor]]  # (1, vector) of each view, of vector terms
    metadata: TermMetadata
    pooled: tuple[Tensor, Tensor]  # (1, dim) of each view


def _measure_place(objective: Objective, samples: SampleBatch, bank: DomainBank) -> _PlaceOutputs:
    batch, images = augmented_views(samples, bank.views, bank.patch_voxels)
    outputs = objective(batch, images)
    pooled = objective.crops(batch).pool_body(objective.encode(batch, images)).float()
    return _PlaceOutputs(
        {
            name: float(total / outputs.counts[name]) if outputs.counts[name] > 0 else math.nan
            for name, total in outputs.sums.items()
        },
        {name: _halves(vectors.float()) for name, vectors in outputs.vectors.items()},
        outputs.metadata,
        _halves(pooled),
    )


def _vector_losses(
    objective: Objective, term: VectorTerm, measured: Sequence[_PlaceOutputs]
) -> list[float]:
    """The loss between all places, as a jackknife pseudo-value of each place."""
    n = len(measured)
    if n < MIN_CONTRASTED:
        return [math.nan] * n

    def loss(chosen: Sequence[_PlaceOutputs]) -> float:
        return float(objective.vector_loss(term, *_term_vectors(term, chosen)))

    whole = loss(measured)
    without = (loss([*measured[:k], *measured[k + 1 :]]) for k in range(n))
    return [n * whole - (n - 1) * other for other in without]


def _prediction_scores(
    objective: Objective, measured: Sequence[_PlaceOutputs]
) -> dict[str, float | None]:
    """How well what is known of the scans of all places is predicted."""
    found: dict[str, float | None] = {}
    for term in objective.trained_vector_terms:
        first, second, metadata = _term_vectors(term, measured)
        own = term.prediction_scores(first, second, objective.metadata_of(term, metadata))
        found |= {name: _finite(score) for name, score in own.items()}
    return found


def _term_vectors(
    term: VectorTerm, places: Sequence[_PlaceOutputs]
) -> tuple[Tensor, Tensor, TermMetadata]:
    """The vectors of both views of places, and their metadata."""
    pairs = (place.vectors[term.name] for place in places)
    first, second = (torch.cat(each) for each in zip(*pairs, strict=True))
    return first, second, concatenate_metadata([place.metadata for place in places])


def _halves(views: Tensor) -> tuple[Tensor, Tensor]:
    first, second = views.chunk(2)
    return first, second


def _by_place(
    values: Sequence[float], places: Sequence[int], count: int
) -> tuple[float | None, ...]:
    """One value for each place of the bank; None where its volume is not there."""
    found = dict(zip(places, map(_finite, values), strict=True))
    return tuple(found.get(number) for number in range(count))


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
