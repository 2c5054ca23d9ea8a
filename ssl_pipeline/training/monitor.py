"""Snapshots of a run: metrics of the encoder, measured periodically on a fixed set of samples.

A snapshot changes nothing that training uses: no weight, no gradient, no random number. A run ends
bit for bit the same with snapshots, without them, or with more of them. Metrics that need
activations are measured on the first batch of the set, as large as a micro-batch; embeddings on all
of it. The embeddings of the last snapshot are stored in the run's checkpoints, so that a resumed
run has the same metrics as an undisturbed one. Of several ranks the first alone takes snapshots.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ssl_pipeline.monitoring.collapse import embedding_drift, rankme, rankme_ceiling
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.gradients import gradient_ratio
from ssl_pipeline.monitoring.knn import knn_accuracy, knn_r2, quantile_bins, same_subject_auc
from ssl_pipeline.monitoring.shortcuts import (
    intensity_histograms,
    retrieval_accuracy,
    site_accuracy,
)
from ssl_pipeline.monitoring.utilization import mfu, peak_flops, step_flops
from ssl_pipeline.objectives.backward import Losses, backward
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.term_inputs import (
    EncodedCrops,
    EncoderPass,
    TermMetadata,
    concatenate_metadata,
    term_metadata,
)
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.training.compute import Compute
from ssl_pipeline.training.distributed import RankGroup
from ssl_pipeline.training.metrics_log import LogRow
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.snapshot_images import IMAGE_CROPS, snapshot_images
from ssl_pipeline.training.snapshots import ImageArrays
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.crops import Batch
from ssl_pipeline.views.sampler import Sampler

REGIONS = 4  # parts of equal size that a root's scans are cut into along z
MakeViews = Callable[[SampleBatch], tuple[Batch, Tensor]]


@dataclass(frozen=True)
class _BatchFeatures:
    """Features of a batch of the snapshot samples, (views, ...) each."""

    pooled: Tensor
    histograms: Tensor  # histograms of grey values
    vectors: dict[str, Tensor]  # of the vector terms, trained or not


@dataclass(frozen=True)
class _SampleMetadata:
    """Metadata of the snapshot samples, none of them a label, (samples,) each."""

    of_terms: TermMetadata
    region: Tensor
    centre: Tensor  # (samples, 3) of the first view, as a fraction of its volume
    sequence: Tensor
    site: Tensor

    @property
    def subject(self) -> Tensor:
        """Equal numbers, equal subjects."""
        return self.of_terms.subject


class Monitor:
    """Measures the metrics of one run (`metrics_registry.METRICS`)."""

    def __init__(
        self,
        section: Monitoring,
        objective: Objective,
        sampler: Sampler,
        make_views: MakeViews,
        compute: Compute,
        max_batch_size: int,
        previous_embeddings: Tensor | None,
    ) -> None:
        """`max_batch_size` is how many samples fit into the device's memory at once.

        `previous_embeddings` (samples, dim) are those of the last snapshot, where there was one;
        the next snapshot replaces them.
        """
        self.objective, self.make_views, self.compute = objective, make_views, compute
        self.batches = sampler.monitoring_batches(section.snapshot_samples, max_batch_size)
        self.image_batch = sampler.monitoring_batches(IMAGE_CROPS, IMAGE_CROPS)[0]
        self.metadata = _sample_metadata(self.batches, sampler.entries, compute.device)
        self.previous_embeddings = previous_embeddings
        self.flops, self.peak, self.same_subject_loss = 0, math.nan, math.nan

    def take_snapshot(self, progress: float, samples_per_s: float) -> LogRow:
        """The metrics after this fraction of the run, at this rank's rate of samples per second."""
        with torch.compiler.set_stance("force_eager"):  # other shapes, and two backward passes
            encoded, features = self._encode(self.batches[0], self.objective.passes)
            every = [features, *(self._encode(batch, ())[1] for batch in self.batches[1:])]
            first, second = _split_views([part.pooled for part in every])
            row = {
                **self._embedding_metrics(first, second),
                **self._neighbour_metrics(first),
                **self._histogram_metrics(every, first),
                **self._term_metrics(encoded, every),
                **self._gradient_ratio_metrics(encoded, progress),
                **self._same_subject_metrics(progress),
                "mfu": self._mfu(progress, samples_per_s),
            }
        return {name: value for name, value in row.items() if math.isfinite(value)}

    def render_images(self) -> ImageArrays:
        """Images of a few samples, which stay the same throughout the run."""
        batch, _ = self.make_views(self.image_batch)
        return snapshot_images(self.objective, batch, self.compute.autocast)

    @torch.no_grad()
    def _encode(
        self, samples: SampleBatch, passes: Collection[EncoderPass]
    ) -> tuple[EncodedCrops, _BatchFeatures]:
        """Crops as the terms see them in these passes, and features by the sparse one."""
        objective, (batch, images) = self.objective, self.make_views(samples)
        crops = objective.crops(batch)
        with self.compute.autocast():
            outputs = objective.encode_crops(crops, images, {"sparse", *passes})
            tokens = outputs.tokens
            vectors = {
                term.name: term.vectors(objective.heads[term.name], crops, tokens).float()
                for term in objective.vector_terms
            }
        features = _BatchFeatures(
            crops.pool_body(tokens).float(), intensity_histograms(images, batch.valid), vectors
        )
        encoded = EncodedCrops(
            crops, images, outputs, objective.encode_crops, self.compute.autocast
        )
        return encoded, features

    def _embedding_metrics(self, first: Tensor, second: Tensor) -> dict[str, float]:
        """Effective rank, drift and retrieval accuracy of the pooled embeddings."""
        before, self.previous_embeddings = self.previous_embeddings, first
        if (
            before is None or before.shape != first.shape
        ):  # monitoring.snapshot_samples may have changed
            before = torch.full_like(first, math.nan)
        rank, found = rankme(first), retrieval_accuracy(first, second)
        return {
            "rankme": rank,
            "rankme_share": rank / rankme_ceiling(*first.shape),
            "embedding_drift": embedding_drift(first, before.to(first)),
            "retrieval_accuracy": found.score,
            "retrieval_chance": found.chance,
        }

    def _neighbour_metrics(self, vectors: Tensor) -> dict[str, float]:
        """What nearest neighbours predict of a sample."""
        known = self.metadata
        region = knn_accuracy(vectors, known.region, known.subject)
        sequence = knn_accuracy(vectors, known.sequence, known.subject)
        return {
            "region_accuracy": region.score,
            "region_chance": region.chance,
            "position_r2": knn_r2(vectors, known.centre, known.subject),
            "sequence_accuracy": sequence.score,
            "sequence_chance": sequence.chance,
            "same_subject_auc": same_subject_auc(vectors, known.subject).score,
        }

    def _histogram_metrics(
        self, features: Sequence[_BatchFeatures], vectors: Tensor
    ) -> dict[str, float]:
        """Site accuracy, and retrieval by histograms where a term could use them."""
        first, second = _split_views([part.histograms for part in features])
        site = site_accuracy(vectors, first, self.metadata.site, self.metadata.subject)
        contrasts = any(term.CONTRASTS_VIEWS for term in self.objective.terms)
        matched = retrieval_accuracy(first, second).score if contrasts else math.nan
        return {
            "histogram_retrieval": matched,
            "site_accuracy": site.embedding,
            "histogram_site_accuracy": site.histogram,
            "site_chance": site.chance,
        }

    def _term_metrics(
        self, encoded: EncodedCrops, features: Sequence[_BatchFeatures]
    ) -> dict[str, float]:
        """What the terms of the objective measure of themselves."""
        objective = self.objective
        found: dict[str, float] = {}
        for summed in objective.summed_terms:
            found |= summed.snapshot_metrics(objective.heads[summed.name], encoded)
        for term in objective.vector_terms:
            first, second = _split_views([part.vectors[term.name] for part in features])
            metadata = objective.metadata_of(term, self.metadata.of_terms)
            found |= term.snapshot_metrics(first, second, metadata)
        return found

    def _gradient_ratio_metrics(self, encoded: EncodedCrops, progress: float) -> dict[str, float]:
        """Gradient norm of the terms that are ramped in over that of the others, on the encoder."""
        objective = self.objective
        ramped = {term.name for term in objective.terms if term.ramp}
        if not 0 < len(ramped) < len(objective.terms):
            return {}
        with self.compute.autocast():
            outputs = objective(encoded.crops.batch, encoded.images)
        weights, losses = objective.term_weights(progress), objective.mean_losses(outputs)
        weighted = {name: weights[name] * loss for name, loss in losses.items()}
        above = sum((weighted[name] for name in weighted if name in ramped), torch.tensor(0.0))
        below = sum((weighted[name] for name in weighted if name not in ramped), torch.tensor(0.0))
        return {"gradient_ratio": gradient_ratio(above, below, objective.encoder.parameters())}

    def _mfu(self, progress: float, samples_per_s: float) -> float:
        """Model FLOPs utilization; operations are counted once per process."""
        if not self.flops:
            self.peak = peak_flops(self.compute.device, self.compute.precision)
            step = partial(self._run_step, self.batches[:1], progress)
            self.flops = step_flops(step, self.compute.device)
        return mfu(self.flops, samples_per_s / len(self.batches[0].meta.number), self.peak)

    def _same_subject_metrics(self, progress: float) -> dict[str, float]:
        """The step's loss between subjects where all its samples are of one; once per process.

        Samples of one subject are no negatives of each other, so it is 0. Two micro-batches at
        most, so that a fault in gathering subjects over them shows.
        """
        names = [each.name for each in self.objective.trained_vector_terms if each.EXCLUDES_SUBJECT]
        if not names:
            return {}
        if math.isnan(self.same_subject_loss):
            losses = self._run_step([_as_one_subject(part) for part in self.batches[:2]], progress)
            self.same_subject_loss = max(losses.by_term[name].item() for name in names)
        return {"same_subject_loss": self.same_subject_loss}

    def _run_step(self, micro_batches: Sequence[SampleBatch], progress: float) -> Losses:
        """The losses of a step on these samples, forward and back; no gradient is left behind."""
        with _preserve_gradients(self.objective):
            return backward(
                self.objective,
                micro_batches,
                self.make_views,
                progress,
                RankGroup(RankInfo()),
                autocast=self.compute.autocast,
                scale_loss=lambda loss: loss,
            )


def _as_one_subject(samples: SampleBatch) -> SampleBatch:
    """The same samples as if all were of one subject."""
    subject = torch.zeros_like(samples.meta.subject)
    return replace(samples, meta=replace(samples.meta, subject=subject))


def _split_views(views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All first views, and all second ones, of batches that hold both."""
    first, second = zip(*(part.chunk(2) for part in views), strict=True)
    return torch.cat(first), torch.cat(second)


@contextmanager
def _preserve_gradients(objective: Objective) -> Iterator[None]:
    """Restore all gradients at the end."""
    kept = [(p, p.grad) for p in objective.parameters()]
    objective.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


def _sample_metadata(
    batches: Sequence[SampleBatch], entries: Sequence[Entry], device: str
) -> _SampleMetadata:
    of = [entries[int(index)] for part in batches for index in part.meta.entry_index[:, 0]]
    middle = torch.cat([torch.from_numpy(part.meta.centre[:, 0]) for part in batches])
    root = _name_codes([entry.root for entry in of])
    of_terms = concatenate_metadata([term_metadata(part) for part in batches])
    return _SampleMetadata(
        of_terms=replace(
            of_terms,
            subject=of_terms.subject.to(device),
            features=of_terms.features.to(device),
            second_features=of_terms.second_features.to(device),
        ),
        region=quantile_bins(middle[:, 0], root, REGIONS).to(device),
        centre=middle.to(device),
        sequence=_name_codes([entry.modality for entry in of]).to(device),
        site=_name_codes([entry.site or entry.root for entry in of]).to(device),
    )


def _name_codes(names: Sequence[str]) -> Tensor:
    """Names as integers from 0, in order of appearance."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])
