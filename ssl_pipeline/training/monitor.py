"""Snapshots of a run: metrics of the encoder, measured periodically on a fixed set of samples.

A snapshot changes nothing that training uses: no weight, no gradient, no random number. A run ends
bit for bit the same with snapshots, without them, or with more of them. Metrics that need
activations are measured on the first batch of the set, as large as a micro-batch; embeddings on all
of it. The embeddings of the last snapshot are stored in the run's checkpoints, so that a resumed
run has the same metrics as an undisturbed one. Of several ranks the first alone takes snapshots.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ssl_pipeline.monitoring.collapse import (
    alignment,
    close_negative_share,
    dimension_std,
    embedding_drift,
    rankme,
    rankme_ceiling,
    subject_contrast_chance,
    uniformity,
)
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.gradients import gradient_ratio, gradient_share_outside
from ssl_pipeline.monitoring.inpainting import (
    inpaint,
    reconstruction_skill,
    visible_mask,
    voxel_mask,
)
from ssl_pipeline.monitoring.knn import knn_accuracy, knn_r2, quantile_bins, same_subject_auc
from ssl_pipeline.monitoring.shortcuts import (
    intensity_histograms,
    measure_position_shortcut,
    retrieval_accuracy,
    separate_views,
    site_accuracy,
)
from ssl_pipeline.monitoring.utilization import mfu, peak_flops, step_flops
from ssl_pipeline.objectives.backward import Losses, backward
from ssl_pipeline.objectives.losses import subject_contrast_loss
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.terms import pool_body
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.training.compute import Compute
from ssl_pipeline.training.distributed import RankGroup
from ssl_pipeline.training.metrics_log import LogRow
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.snapshot_images import IMAGE_CROPS, snapshot_images
from ssl_pipeline.training.snapshots import ImageArrays
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.crops import Batch
from ssl_pipeline.views.patches import gather_tokens, patchify
from ssl_pipeline.views.sampler import Sampler

REGIONS = 4  # parts of equal size that a root's scans are cut into along z
MakeViews = Callable[[SampleBatch], tuple[Batch, Tensor]]


@dataclass(frozen=True)
class _EncodedBatch:
    """A batch of the snapshot samples, and its tokens under the present encoder."""

    batch: Batch
    images: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class _BatchFeatures:
    """Features of a batch of the snapshot samples, (views, ...) each."""

    pooled: Tensor
    histograms: Tensor  # histograms of grey values
    vectors: Tensor | None  # of the term between subjects


@dataclass(frozen=True)
class _SampleMetadata:
    """Metadata of the snapshot samples, none of them a label, (samples,) each."""

    subject: Tensor
    metadata_features: Tensor  # (samples, features)
    region: Tensor
    centre: Tensor  # (samples, 3) of the first view, as a fraction of its volume
    sequence: Tensor
    site: Tensor


class Monitor:
    """Measures the metrics of one run (`monitoring.metrics_registry.METRICS`)."""

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
        self.flops, self.peak = 0, math.nan
        self.same_subject_loss = math.nan

    def take_snapshot(self, progress: float, samples_per_s: float) -> LogRow:
        """The metrics after this fraction of the run, at this rank's rate of samples per second."""
        with torch.compiler.set_stance("force_eager"):  # other shapes, and two backward passes
            encoded, features = self._encode(self.batches[0])
            every = [features, *(self._encode(batch)[1] for batch in self.batches[1:])]
            first, second = _split_views([part.pooled for part in every])
            row = {
                **self._embedding_metrics(first, second),
                **self._neighbour_metrics(first),
                **self._histogram_metrics(every, first),
                **self._skill_metrics(encoded),
                **self._gradient_outside_metrics(encoded),
                **self._contrast_metrics(encoded, every),
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
    def _encode(self, samples: SampleBatch) -> tuple[_EncodedBatch, _BatchFeatures]:
        batch, images = self.make_views(samples)
        with self.compute.autocast():
            tokens = self.objective.encode(batch, images)
            subject_term = self.objective.subject_term
            vectors = subject_term(batch, tokens).float() if subject_term else None
        features = _BatchFeatures(
            pool_body(batch, tokens).float(), intensity_histograms(images, batch.valid), vectors
        )
        return _EncodedBatch(batch, images, tokens), features

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
        """Site accuracy, and retrieval by intensity histograms where contrast could use them."""
        first, second = _split_views([part.histograms for part in features])
        site = site_accuracy(vectors, first, self.metadata.site, self.metadata.subject)
        matched = retrieval_accuracy(first, second).score if self.objective.contrast else math.nan
        return {
            "histogram_retrieval": matched,
            "site_accuracy": site.embedding,
            "histogram_site_accuracy": site.histogram,
            "site_chance": site.chance,
        }

    @torch.no_grad()
    def _skill_metrics(self, encoded: _EncodedBatch) -> dict[str, float]:
        """Reconstruction against in-painting, in hidden, valid voxels of the body.

        Not with `normalize_patches`: in-painting does not know the units of a patch.
        """
        term, batch = self.objective.reconstruction_term, encoded.batch
        if term is None or term.section.normalize_patches:
            return {}
        z, y, x = batch.clean.shape[2:]
        patch, tokens = term.patch, batch.body_share.shape[1]
        with self.compute.autocast():
            reconstructed = term.reconstruct(batch, encoded.tokens)
        known = visible_mask(batch.visible, tokens)
        scored = voxel_mask(~known & (batch.body_share >= 0.5), (z, y, x), patch)
        filled = inpaint(batch.clean, known, batch.valid, patch)
        return {
            "reconstruction_skill": reconstruction_skill(
                reconstructed, filled, batch.clean, scored * batch.valid[:, None]
            )
        }

    def _gradient_outside_metrics(self, encoded: _EncodedBatch) -> dict[str, float]:
        """Fraction of the reconstruction gradient outside the body, at the decoded voxels."""
        term, batch = self.objective.reconstruction_term, encoded.batch
        if term is None:
            return {}
        decoded: list[tuple[Tensor, Tensor]] = []  # the decoded tokens, and their voxels

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], voxels: Tensor) -> None:
            decoded.append((inputs[2], voxels))

        with term.decoder.register_forward_hook(keep), self.compute.autocast():
            total, _ = term(batch, encoded.tokens)
        ((wanted, voxels),) = decoded
        (gradient,) = torch.autograd.grad(total, voxels)
        valid = gather_tokens(patchify(batch.valid[:, None], term.patch), wanted) > 0
        body = batch.body_share.gather(1, wanted) >= 0.5
        return {"gradient_outside_body": gradient_share_outside(gradient, valid & body[..., None])}

    @torch.no_grad()
    def _contrast_metrics(
        self, encoded: _EncodedBatch, features: Sequence[_BatchFeatures]
    ) -> dict[str, float]:
        """Distribution of the projections, and whether locations are matched by content."""
        term = self.objective.local_term
        vectors = [part.vectors for part in features if part.vectors is not None]
        if term is None or not vectors:
            return {}
        first, second = _split_views(vectors)
        batch, images = encoded.batch, encoded.images

        def loss(images: Tensor, where: Batch = batch) -> Tensor:
            with self.compute.autocast():
                return _mean(*term(where, self.objective.encode(where, images)))

        equal = torch.zeros_like(encoded.tokens[..., :1], dtype=torch.float32)
        local = measure_position_shortcut(
            loss, images, _mean(*term.contrast_vectors(batch, equal)).item()
        )
        # A little farther than the distance of negatives, which occurs in training too.
        apart = separate_views(batch, term.section.negative_patches + 0.25, term.patch)
        placed = loss(torch.zeros_like(images), apart) / _mean(*term.contrast_vectors(apart, equal))
        return {
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "dimension_std": dimension_std(first),
            "close_negative_share": close_negative_share(first, self.metadata.subject),
            **self._subject_contrast_metrics(first, second, term.section.temperature),
            "local_contrast_real": local.real,
            "local_contrast_empty": local.empty,
            "local_contrast_swapped": local.swapped,
            "local_contrast_chance": local.chance,
            "position_shortcut": 1 - placed.item(),
            "empty_share": local.empty_share,
            "swapped_share": local.swapped_share,
        }

    def _subject_contrast_metrics(
        self, first: Tensor, second: Tensor, temperature: float
    ) -> dict[str, float]:
        """The loss between subjects and its chance level, where the encoder is trained by it."""
        if self.objective.trained_subject_term is None:
            return {}
        metadata = self.metadata.subject, self.metadata.metadata_features
        loss = subject_contrast_loss(first, second, *metadata, temperature).item()
        return {
            "subject_contrast_snapshot": loss,
            "subject_contrast_chance": subject_contrast_chance(*metadata),
        }

    def _gradient_ratio_metrics(self, encoded: _EncodedBatch, progress: float) -> dict[str, float]:
        """Gradient norm of contrast over that of reconstruction, on the encoder."""
        objective, batch = self.objective, encoded.batch
        if objective.reconstruction_term is None or objective.contrast is None:
            return {}
        weights = objective.term_weights(progress)
        with self.compute.autocast():
            outputs = objective(batch, encoded.images)
        losses = {name: _mean(value, outputs.counts[name]) for name, value in outputs.sums.items()}
        contrast = weights["local_contrast"] * losses["local_contrast"]
        if outputs.vectors is not None:
            first, second = outputs.vectors.chunk(2)
            temperature = objective.contrast.temperature
            between = subject_contrast_loss(
                first, second, batch.subject, batch.metadata_features, temperature
            )
            contrast = contrast + weights["subject_contrast"] * between
        reconstruction = weights["reconstruction"] * losses["reconstruction"]
        ratio = gradient_ratio(contrast, reconstruction, objective.encoder.parameters())
        return {"gradient_ratio": ratio}

    def _mfu(self, progress: float, samples_per_s: float) -> float:
        """Model FLOPs utilization; operations are counted once per process."""
        if not self.flops:
            self.peak = peak_flops(self.compute.device, self.compute.precision)
            step = partial(self._run_step, self.batches[0], progress)
            self.flops = step_flops(step, self.compute.device)
        return mfu(self.flops, samples_per_s / len(self.batches[0].number), self.peak)

    def _same_subject_metrics(self, progress: float) -> dict[str, float]:
        """The step's loss between subjects where all samples are of one; computed once per process.

        Samples of one subject are no negatives of each other, so the loss must be 0.
        """
        if self.objective.trained_subject_term is None:
            return {}
        if math.isnan(self.same_subject_loss):
            samples = self.batches[0]
            one_subject = replace(samples, subject=torch.zeros_like(samples.subject))
            losses = self._run_step(one_subject, progress)
            self.same_subject_loss = losses.by_term["subject_contrast"].item()
        return {"same_subject_loss": self.same_subject_loss}

    def _run_step(self, samples: SampleBatch, progress: float) -> Losses:
        """The losses of a training step on these samples; no gradient is left behind."""
        with _preserve_gradients(self.objective):
            return backward(
                self.objective,
                [samples],
                self.make_views,
                progress,
                RankGroup(RankInfo()),
                autocast=self.compute.autocast,
                scale_loss=lambda loss: loss,
            )


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp(min=1)


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
    of = [entries[int(index)] for part in batches for index in part.entry_index]
    middle = torch.cat([torch.from_numpy(part.centre[: len(part.number)]) for part in batches])
    root = _name_codes([entry.root for entry in of])
    return _SampleMetadata(
        subject=torch.cat([part.subject for part in batches]).to(device),
        metadata_features=torch.cat([part.metadata_features for part in batches]).to(device),
        region=quantile_bins(middle[:, 0], root, REGIONS).to(device),
        centre=middle.to(device),
        sequence=_name_codes([entry.modality for entry in of]).to(device),
        site=_name_codes([entry.site or entry.root for entry in of]).to(device),
    )


def _name_codes(names: Sequence[str]) -> Tensor:
    """Names as integers from 0, in order of appearance."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])
