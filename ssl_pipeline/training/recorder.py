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

from ssl_pipeline.flight.config import Flight
from ssl_pipeline.flight.effort import mfu, peak_of, step_flops
from ssl_pipeline.flight.gradients import gradient_ratio, share_outside
from ssl_pipeline.flight.inpainting import inpaint, seen_tokens, skill, spread_over_voxels
from ssl_pipeline.flight.neighbours import knn_accuracy, knn_r2, own_subject, quantile_bins
from ssl_pipeline.flight.shortcuts import histograms, moved_apart, position, retrieval, scanner
from ssl_pipeline.flight.spread import (
    alignment,
    close_negatives,
    dimension_spread,
    drift,
    effective_rank,
    rank_ceiling,
    subject_chance,
    uniformity,
)
from ssl_pipeline.objectives.losses import subject_contrast
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.step import Losses, backward
from ssl_pipeline.objectives.terms import pooled
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.training.device import Compute
from ssl_pipeline.training.distributed import Ranks
from ssl_pipeline.training.metrics import Row
from ssl_pipeline.training.moments import Arrays
from ssl_pipeline.training.pictures import CROPS, picture
from ssl_pipeline.training.world import World
from ssl_pipeline.views.blocks import Blocks
from ssl_pipeline.views.cut import Batch
from ssl_pipeline.views.sampler import Sampler
from ssl_pipeline.views.tokens import gather, patchify

REGIONS = 4  # parts of equal size that a root's scans are cut into along z
See = Callable[[Blocks], tuple[Batch, Tensor]]


@dataclass(frozen=True)
class _Seen:
    """A part of the bank as the encoder sees it now."""

    batch: Batch
    images: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class _Said:
    """What is kept of every part of the bank, (views, ...) each."""

    pooled: Tensor
    grey: Tensor  # histograms of grey values
    vectors: Tensor | None  # of the term between subjects


@dataclass(frozen=True)
class _Known:
    """What is known of the bank's places without any label, (places,) each."""

    subject: Tensor
    traits: Tensor  # (places, traits)
    region: Tensor
    middle: Tensor  # (places, 3) of the first view, as a share of its volume
    sequence: Tensor
    site: Tensor


class Recorder:
    """Takes the signs of one run (`flight.signs.SIGNS`)."""

    def __init__(
        self,
        section: Flight,
        objective: Objective,
        sampler: Sampler,
        see: See,
        compute: Compute,
        most: int,
        before: Tensor | None,
    ) -> None:
        """`most` is how many places the device's memory has room for at once.

        `before` (places, dim) is what the bank's embeddings were at the last record, where there
        was one; the next record takes their place.
        """
        self.objective, self.see, self.compute = objective, see, compute
        self.parts = sampler.bank(section.bank, most)
        self.shown = sampler.bank(CROPS, CROPS)[0]
        self.known = _known(self.parts, sampler.entries, compute.device)
        self.before = before
        self.flops, self.peak = 0, math.nan
        self.own_negatives = math.nan

    def record(self, share: float, pairs_per_s: float) -> Row:
        """The signs after this share of the run, at so many pairs a second of this rank."""
        with torch.compiler.set_stance("force_eager"):  # other shapes, and two ways back
            seen, said = self._look(self.parts[0])
            every = [said, *(self._look(blocks)[1] for blocks in self.parts[1:])]
            first, second = _halves([part.pooled for part in every])
            row = {
                **self._embedded(first, second),
                **self._told(first),
                **self._grey(every, first),
                **self._rebuilt(seen),
                **self._pulled(seen),
                **self._contrasted(seen, every),
                **self._weighed(seen, share),
                **self._of_one_subject(share),
                "mfu": self._mfu(share, pairs_per_s),
            }
        return {name: value for name, value in row.items() if math.isfinite(value)}

    def moment(self) -> Arrays:
        """Pictures of a few places, the same all through the run."""
        batch, _ = self.see(self.shown)
        return picture(self.objective, batch, self.compute.autocast)

    @torch.no_grad()
    def _look(self, blocks: Blocks) -> tuple[_Seen, _Said]:
        batch, images = self.see(blocks)
        with self.compute.autocast():
            tokens = self.objective.tokens(batch, images)
            subjects = self.objective.subjects
            vectors = subjects(batch, tokens).float() if subjects else None
        said = _Said(pooled(batch, tokens).float(), histograms(images, batch.valid), vectors)
        return _Seen(batch, images, tokens), said

    def _embedded(self, first: Tensor, second: Tensor) -> dict[str, float]:
        """How the encoder's own embeddings fill their space, and whether they move."""
        before, self.before = self.before, first
        if before is None or before.shape != first.shape:  # flight.bank may have changed
            before = torch.full_like(first, math.nan)
        rank, found = effective_rank(first), retrieval(first, second)
        return {
            "rank": rank,
            "rank_share": rank / rank_ceiling(*first.shape),
            "drift": drift(first, before.to(first)),
            "matched": found.score,
            "matched_chance": found.chance,
        }

    def _told(self, vectors: Tensor) -> dict[str, float]:
        """What neighbours tell of a place."""
        known = self.known
        region = knn_accuracy(vectors, known.region, known.subject)
        sequence = knn_accuracy(vectors, known.sequence, known.subject)
        return {
            "region": region.score,
            "region_chance": region.chance,
            "position_r2": knn_r2(vectors, known.middle, known.subject),
            "sequence": sequence.score,
            "sequence_chance": sequence.chance,
            "own_subject": own_subject(vectors, known.subject).score,
        }

    def _grey(self, every: Sequence[_Said], vectors: Tensor) -> dict[str, float]:
        """What histograms of grey values alone tell; whether they match views, where that helps."""
        first, second = _halves([part.grey for part in every])
        site = scanner(vectors, first, self.known.site, self.known.subject)
        matched = retrieval(first, second).score if self.objective.contrast else math.nan
        return {
            "matched_by_histogram": matched,
            "scanner": site.embedding,
            "scanner_by_histogram": site.histogram,
            "scanner_chance": site.chance,
        }

    @torch.no_grad()
    def _rebuilt(self, seen: _Seen) -> dict[str, float]:
        """Rebuilding against in-painting, in hidden, valid voxels of the body.

        Not where patches are rebuilt in units of their own, which in-painting is not told.
        """
        rebuilding, batch = self.objective.rebuilding, seen.batch
        if rebuilding is None or rebuilding.section.soft_norm:
            return {}
        z, y, x = batch.clean.shape[2:]
        patch, tokens = rebuilding.patch, batch.body.shape[1]
        with self.compute.autocast():
            rebuilt = rebuilding.rebuilt(batch, seen.tokens)
        known = seen_tokens(batch.visible, tokens)
        judged = spread_over_voxels(~known & (batch.body >= 0.5), (z, y, x), patch)
        filled = inpaint(batch.clean, known, batch.valid, patch)
        return {"skill": skill(rebuilt, filled, batch.clean, judged * batch.valid[:, None])}

    def _pulled(self, seen: _Seen) -> dict[str, float]:
        """Where the gradient of rebuilding lies, at the voxels that the decoder says."""
        rebuilding, batch = self.objective.rebuilding, seen.batch
        if rebuilding is None:
            return {}
        decoded: list[tuple[Tensor, Tensor]] = []  # which tokens, and their voxels

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], voxels: Tensor) -> None:
            decoded.append((inputs[2], voxels))

        with rebuilding.decoder.register_forward_hook(keep), self.compute.autocast():
            total, _ = rebuilding(batch, seen.tokens)
        ((wanted, voxels),) = decoded
        (gradient,) = torch.autograd.grad(total, voxels)
        valid = gather(patchify(batch.valid[:, None], rebuilding.patch), wanted) > 0
        body = batch.body.gather(1, wanted) >= 0.5
        return {"rebuilt_outside": share_outside(gradient, valid & body[..., None])}

    @torch.no_grad()
    def _contrasted(self, seen: _Seen, every: Sequence[_Said]) -> dict[str, float]:
        """How projected vectors fill their space, and whether places are told by content."""
        places = self.objective.places
        vectors = [part.vectors for part in every if part.vectors is not None]
        if places is None or not vectors:
            return {}
        first, second = _halves(vectors)
        batch, images = seen.batch, seen.images

        def loss(shown: Tensor, where: Batch = batch) -> Tensor:
            with self.compute.autocast():
                return _mean(*places(where, self.objective.tokens(where, shown)))

        alike = torch.zeros_like(seen.tokens[..., :1], dtype=torch.float32)
        local = position(loss, images, _mean(*places.between(batch, alike)).item())
        # A little farther than tokens are that count as negatives: seen in training too.
        apart = moved_apart(batch, places.section.negative_patches + 0.25, places.patch)
        placed = loss(torch.zeros_like(images), apart) / _mean(*places.between(apart, alike))
        return {
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "spread": dimension_spread(first),
            "close_negatives": close_negatives(first, self.known.subject),
            **self._between(first, second, places.section.temperature),
            "local_real": local.real,
            "local_empty": local.empty,
            "local_swapped": local.swapped,
            "local_chance": local.chance,
            "placed": 1 - placed.item(),
            "empty_share": local.empty_share,
            "swapped_share": local.swapped_share,
        }

    def _between(self, first: Tensor, second: Tensor, temperature: float) -> dict[str, float]:
        """The loss between subjects, which says nothing of an encoder that is not trained by it."""
        if self.objective.between is None:
            return {}
        who = self.known.subject, self.known.traits
        loss = subject_contrast(first, second, *who, temperature).item()
        return {"global_bank": loss, "global_chance": subject_chance(*who)}

    def _weighed(self, seen: _Seen, share: float) -> dict[str, float]:
        """The pull of contrast against that of reconstruction, on the encoder."""
        objective, batch = self.objective, seen.batch
        if objective.rebuilding is None or objective.contrast is None:
            return {}
        weights = objective.weights(share)
        with self.compute.autocast():
            said = objective(batch, seen.images)
        losses = {name: _mean(value, said.counts[name]) for name, value in said.sums.items()}
        contrast = weights["local"] * losses["local"]
        if said.vectors is not None:
            first, second = said.vectors.chunk(2)
            temperature = objective.contrast.temperature
            between = subject_contrast(first, second, batch.subject, batch.traits, temperature)
            contrast = contrast + weights["global"] * between
        rebuilding = weights["reconstruction"] * losses["reconstruction"]
        ratio = gradient_ratio(contrast, rebuilding, objective.encoder.parameters())
        return {"gradient_ratio": ratio}

    def _mfu(self, share: float, pairs_per_s: float) -> float:
        """Share of the device's peak that the model's operations take; counted once a process."""
        if not self.flops:
            self.peak = peak_of(self.compute.device, self.compute.precision)
            step = partial(self._step, self.parts[0], share)
            self.flops = step_flops(step, self.compute.device)
        return mfu(self.flops, pairs_per_s / len(self.parts[0].number), self.peak)

    def _of_one_subject(self, share: float) -> dict[str, float]:
        """The step's own loss between subjects where all places are one's; asked once a process.

        No place of a subject is a negative of another, so nothing is left to lose.
        """
        if self.objective.between is None:
            return {}
        if math.isnan(self.own_negatives):
            blocks = self.parts[0]
            alike = replace(blocks, subject=torch.zeros_like(blocks.subject))
            self.own_negatives = self._step(alike, share).parts["global"].item()
        return {"own_negatives": self.own_negatives}

    def _step(self, blocks: Blocks, share: float) -> Losses:
        """What a step's passes, forward and back, say of some places; no gradient is left."""
        with _gradients_kept(self.objective):
            return backward(
                self.objective,
                [blocks],
                self.see,
                share,
                Ranks(World()),
                autocast=self.compute.autocast,
                scale=lambda loss: loss,
            )


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp(min=1)


def _halves(views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All first views, and all second ones, of parts that hold both."""
    first, second = zip(*(part.chunk(2) for part in views), strict=True)
    return torch.cat(first), torch.cat(second)


@contextmanager
def _gradients_kept(objective: Objective) -> Iterator[None]:
    """What is added to the gradients inside is taken off again."""
    kept = [(p, p.grad) for p in objective.parameters()]
    objective.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


def _known(parts: Sequence[Blocks], entries: Sequence[Entry], device: str) -> _Known:
    of = [entries[int(index)] for part in parts for index in part.entry]
    middle = torch.cat([torch.from_numpy(part.middle[: len(part.number)]) for part in parts])
    root = _numbered([entry.root for entry in of])
    return _Known(
        subject=torch.cat([part.subject for part in parts]).to(device),
        traits=torch.cat([part.traits for part in parts]).to(device),
        region=quantile_bins(middle[:, 0], root, REGIONS).to(device),
        middle=middle.to(device),
        sequence=_numbered([entry.modality for entry in of]).to(device),
        site=_numbered([entry.site or entry.root for entry in of]).to(device),
    )


def _numbered(names: Sequence[str]) -> Tensor:
    """Names as numbers from 0, in the order in which they come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])
