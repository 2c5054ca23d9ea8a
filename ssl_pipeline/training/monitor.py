"""The flight recorder: the signs of a run, taken now and then on a bank of places that stays.

It touches nothing that training uses: no weight, no gradient, no random number. A run ends bit for
bit the same with it, without it, or looked at more often. What needs activations is taken on the
first part of the bank, as large as a micro-batch; embeddings on all of it. Those of the last record
are kept with the run's checkpoints, so that a resumed run has the signs of an undisturbed one. Of
several ranks the first alone records.
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
    """A part of the bank as the encoder sees it now."""

    batch: Batch
    images: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class _BatchFeatures:
    """What is kept of every part of the bank, (views, ...) each."""

    pooled: Tensor
    histograms: Tensor  # histograms of grey values
    vectors: Tensor | None  # of the term between subjects


@dataclass(frozen=True)
class _SampleMetadata:
    """What is known of the bank's places without any label, (places,) each."""

    subject: Tensor
    metadata_features: Tensor  # (places, traits)
    region: Tensor
    centre: Tensor  # (places, 3) of the first view, as a share of its volume
    sequence: Tensor
    site: Tensor


class Monitor:
    """Takes the signs of one run (`flight.signs.SIGNS`)."""

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
        """`most` is how many places the device's memory has room for at once.

        `before` (places, dim) is what the bank's embeddings were at the last record, where there
        was one; the next record takes their place.
        """
        self.objective, self.make_views, self.compute = objective, make_views, compute
        self.batches = sampler.monitoring_batches(section.snapshot_samples, max_batch_size)
        self.image_batch = sampler.monitoring_batches(IMAGE_CROPS, IMAGE_CROPS)[0]
        self.metadata = _sample_metadata(self.batches, sampler.entries, compute.device)
        self.previous_embeddings = previous_embeddings
        self.flops, self.peak = 0, math.nan
        self.same_subject_loss = math.nan

    def take_snapshot(self, progress: float, samples_per_s: float) -> LogRow:
        """The signs after this share of the run, at so many pairs a second of this rank."""
        with torch.compiler.set_stance("force_eager"):  # other shapes, and two ways back
            seen, said = self._encode(self.batches[0])
            every = [said, *(self._encode(blocks)[1] for blocks in self.batches[1:])]
            first, second = _split_views([part.pooled for part in every])
            row = {
                **self._embedding_metrics(first, second),
                **self._neighbour_metrics(first),
                **self._histogram_metrics(every, first),
                **self._skill_metrics(seen),
                **self._gradient_outside_metrics(seen),
                **self._contrast_metrics(seen, every),
                **self._gradient_ratio_metrics(seen, progress),
                **self._same_subject_metrics(progress),
                "mfu": self._mfu(progress, samples_per_s),
            }
        return {name: value for name, value in row.items() if math.isfinite(value)}

    def render_images(self) -> ImageArrays:
        """Pictures of a few places, the same all through the run."""
        batch, _ = self.make_views(self.image_batch)
        return snapshot_images(self.objective, batch, self.compute.autocast)

    @torch.no_grad()
    def _encode(self, samples: SampleBatch) -> tuple[_EncodedBatch, _BatchFeatures]:
        batch, images = self.make_views(samples)
        with self.compute.autocast():
            tokens = self.objective.encode(batch, images)
            subjects = self.objective.subject_term
            vectors = subjects(batch, tokens).float() if subjects else None
        said = _BatchFeatures(
            pool_body(batch, tokens).float(), intensity_histograms(images, batch.valid), vectors
        )
        return _EncodedBatch(batch, images, tokens), said

    def _embedding_metrics(self, first: Tensor, second: Tensor) -> dict[str, float]:
        """How the encoder's own embeddings fill their space, and whether they move."""
        before, self.previous_embeddings = self.previous_embeddings, first
        if before is None or before.shape != first.shape:  # flight.bank may have changed
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
        """What neighbours tell of a place."""
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
        """What histograms of grey values alone tell; whether they match views, where that helps."""
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
        """Rebuilding against in-painting, in hidden, valid voxels of the body.

        Not where patches are rebuilt in units of their own, which in-painting is not told.
        """
        rebuilding, batch = self.objective.reconstruction_term, encoded.batch
        if rebuilding is None or rebuilding.section.normalize_patches:
            return {}
        z, y, x = batch.clean.shape[2:]
        patch, tokens = rebuilding.patch, batch.body_share.shape[1]
        with self.compute.autocast():
            rebuilt = rebuilding.reconstruct(batch, encoded.tokens)
        known = visible_mask(batch.visible, tokens)
        judged = voxel_mask(~known & (batch.body_share >= 0.5), (z, y, x), patch)
        filled = inpaint(batch.clean, known, batch.valid, patch)
        return {
            "reconstruction_skill": reconstruction_skill(
                rebuilt, filled, batch.clean, judged * batch.valid[:, None]
            )
        }

    def _gradient_outside_metrics(self, encoded: _EncodedBatch) -> dict[str, float]:
        """Where the gradient of rebuilding lies, at the voxels that the decoder says."""
        rebuilding, batch = self.objective.reconstruction_term, encoded.batch
        if rebuilding is None:
            return {}
        decoded: list[tuple[Tensor, Tensor]] = []  # which tokens, and their voxels

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], voxels: Tensor) -> None:
            decoded.append((inputs[2], voxels))

        with rebuilding.decoder.register_forward_hook(keep), self.compute.autocast():
            total, _ = rebuilding(batch, encoded.tokens)
        ((wanted, voxels),) = decoded
        (gradient,) = torch.autograd.grad(total, voxels)
        valid = gather_tokens(patchify(batch.valid[:, None], rebuilding.patch), wanted) > 0
        body = batch.body_share.gather(1, wanted) >= 0.5
        return {"gradient_outside_body": gradient_share_outside(gradient, valid & body[..., None])}

    @torch.no_grad()
    def _contrast_metrics(
        self, encoded: _EncodedBatch, features: Sequence[_BatchFeatures]
    ) -> dict[str, float]:
        """How projected vectors fill their space, and whether places are told by content."""
        places = self.objective.local_term
        vectors = [part.vectors for part in features if part.vectors is not None]
        if places is None or not vectors:
            return {}
        first, second = _split_views(vectors)
        batch, images = encoded.batch, encoded.images

        def loss(shown: Tensor, where: Batch = batch) -> Tensor:
            with self.compute.autocast():
                return _mean(*places(where, self.objective.encode(where, shown)))

        alike = torch.zeros_like(encoded.tokens[..., :1], dtype=torch.float32)
        local = measure_position_shortcut(
            loss, images, _mean(*places.contrast_vectors(batch, alike)).item()
        )
        # A little farther than tokens are that count as negatives: seen in training too.
        apart = separate_views(batch, places.section.negative_patches + 0.25, places.patch)
        placed = loss(torch.zeros_like(images), apart) / _mean(
            *places.contrast_vectors(apart, alike)
        )
        return {
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "dimension_std": dimension_std(first),
            "close_negative_share": close_negative_share(first, self.metadata.subject),
            **self._subject_contrast_metrics(first, second, places.section.temperature),
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
        """The loss between subjects, which says nothing of an encoder that is not trained by it."""
        if self.objective.trained_subject_term is None:
            return {}
        who = self.metadata.subject, self.metadata.metadata_features
        loss = subject_contrast_loss(first, second, *who, temperature).item()
        return {"subject_contrast_snapshot": loss, "subject_contrast_chance": subject_contrast_chance(*who)}

    def _gradient_ratio_metrics(self, encoded: _EncodedBatch, progress: float) -> dict[str, float]:
        """The pull of contrast against that of reconstruction, on the encoder."""
        objective, batch = self.objective, encoded.batch
        if objective.reconstruction_term is None or objective.contrast is None:
            return {}
        weights = objective.term_weights(progress)
        with self.compute.autocast():
            said = objective(batch, encoded.images)
        losses = {name: _mean(value, said.counts[name]) for name, value in said.sums.items()}
        contrast = weights["local_contrast"] * losses["local_contrast"]
        if said.vectors is not None:
            first, second = said.vectors.chunk(2)
            temperature = objective.contrast.temperature
            between = subject_contrast_loss(
                first, second, batch.subject, batch.metadata_features, temperature
            )
            contrast = contrast + weights["subject_contrast"] * between
        rebuilding = weights["reconstruction"] * losses["reconstruction"]
        ratio = gradient_ratio(contrast, rebuilding, objective.encoder.parameters())
        return {"gradient_ratio": ratio}

    def _mfu(self, progress: float, samples_per_s: float) -> float:
        """Share of the device's peak that the model's operations take; counted once a process."""
        if not self.flops:
            self.peak = peak_flops(self.compute.device, self.compute.precision)
            step = partial(self._run_step, self.batches[0], progress)
            self.flops = step_flops(step, self.compute.device)
        return mfu(self.flops, samples_per_s / len(self.batches[0].number), self.peak)

    def _same_subject_metrics(self, progress: float) -> dict[str, float]:
        """The step's own loss between subjects where all places are one's; asked once a process.

        No place of a subject is a negative of another, so nothing is left to lose.
        """
        if self.objective.trained_subject_term is None:
            return {}
        if math.isnan(self.same_subject_loss):
            blocks = self.batches[0]
            alike = replace(blocks, subject=torch.zeros_like(blocks.subject))
            self.same_subject_loss = self._run_step(alike, progress).by_term["subject_contrast"].item()
        return {"same_subject_loss": self.same_subject_loss}

    def _run_step(self, samples: SampleBatch, progress: float) -> Losses:
        """What a step's passes, forward and back, say of some places; no gradient is left."""
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
    """All first views, and all second ones, of parts that hold both."""
    first, second = zip(*(part.chunk(2) for part in views), strict=True)
    return torch.cat(first), torch.cat(second)


@contextmanager
def _preserve_gradients(objective: Objective) -> Iterator[None]:
    """What is added to the gradients inside is taken off again."""
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
    """Names as numbers from 0, in the order in which they come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])
