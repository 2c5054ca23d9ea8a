"""Sampling of training batches: subjects, volumes, blocks, and the parameters of their views.

A step's samples come from different subjects where there are enough, drawn by weight without
replacement, because the loss between subjects learns from their contrast. For each sample a block
is read that has room for two overlapping crops; `crops` cuts them from it, on the training device.
Everything is a function of (seed, sample number): see `rng`.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.prepare import learnable_mask
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.shard import ALL_CHANNELS, INTENSITY_CHANNEL, MASK_CHANNEL
from ssl_pipeline.types import Triple, triple
from ssl_pipeline.views.augmentation_params import (
    SampleKey,
    draw_flips,
    draw_params,
    draw_starts,
)
from ssl_pipeline.views.collate import SampleBatch, collate
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.pairing import same_place, scans_by_visit
from ssl_pipeline.views.patches import patch_grid
from ssl_pipeline.views.rng import generator
from ssl_pipeline.views.sample import Block, Sample, SampleMeta

MAX_READ_ATTEMPTS = 10  # blocks tried for one with enough valid voxels; the best is taken


@dataclass(frozen=True)
class ReplayMix:
    """Which of the subjects are of earlier cohorts, and how much of a step is drawn from these.

    A subject of earlier cohorts that is not among `replayed` is not drawn.
    """

    share: float
    earlier: frozenset[str]  # names of subjects, as the keys of `Sampler.subject_codes`
    replayed: frozenset[str]

    def count(self, batch_size: int) -> int:
        """Samples of a step from earlier cohorts: at least one where any are wanted, never all."""
        return min(batch_size - 1, max(1, round(self.share * batch_size))) if self.share else 0


class Sampler:
    """Draws the batches of a run; `metadata_features` is (entries, features).

    Raises UserError where no volume is given or the crop is no multiple of the patch.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        reader: CropReader,
        views: Views,
        patch: Triple,
        *,
        batch_size: int,
        seed: int,
        metadata_features: NDArray[np.float32] | None = None,
        replay: ReplayMix | None = None,
    ) -> None:
        if not entries:
            raise UserError("No volume is left to train on: see the inventory for the reasons.")
        if any(c % p for c, p in zip(views.crop_voxels, patch, strict=True)):
            raise UserError(
                f"views.crop_voxels is {list(views.crop_voxels)}, no multiple of the patch, "
                f"{list(patch)}: choose sides that the patch divides."
            )
        self.entries, self.reader, self.views, self.patch = list(entries), reader, views, patch
        self.batch_size, self.seed = batch_size, seed
        self.metadata_features = (
            np.zeros((len(entries), 0), np.float32)
            if metadata_features is None
            else metadata_features
        )
        names = dict.fromkeys(map(subject_name, entries))
        self.subject_codes = {name: code for code, name in enumerate(names)}
        self._entries_of_subject: list[list[int]] = [[] for _ in names]
        for index, entry in enumerate(entries):
            self._entries_of_subject[self.subject_codes[subject_name(entry)]].append(index)
        self._entries_of_visit = scans_by_visit(entries)
        self._weights = self._subject_weights()
        self._groups = _drawing_groups(replay, list(names), self._weights, batch_size)
        self._token_count = int(np.prod(patch_grid(views.crop_voxels, patch)))
        self._block_cache: OrderedDict[int, tuple[Block, ...]] = OrderedDict()
        self._lock = Lock()

    def _subject_weights(self) -> NDArray[np.float64]:
        """Each root has its weight as a whole, divided equally among its subjects.

        Weights of scans come on top: a subject of twice the mean weight is drawn twice as often.
        """
        root_of = [self.entries[indices[0]].root for indices in self._entries_of_subject]
        count = Counter(root_of)
        weight = np.array(
            [
                np.mean([self.entries[index].weight for index in indices]) / count[root]
                for indices, root in zip(self._entries_of_subject, root_of, strict=True)
            ]
        )
        if not weight.sum() > 0:
            raise UserError(
                "Every scan has a sampling_weight of 0: give at least one a weight above 0."
            )
        normed: NDArray[np.float64] = weight / weight.sum()
        return normed

    def subjects(self, step: int) -> NDArray[np.int64]:
        """The subjects of a step's samples, (samples,); all different where there are enough.

        Steps that share their blocks share their subjects.
        """
        rng = generator(self.seed, step // self.views.steps_per_read, "subjects")
        drawn = [_draw_subjects(rng, count, weights) for count, weights in self._groups]
        return drawn[0] if len(drawn) == 1 else rng.permutation(np.concatenate(drawn))

    def _draw_volume(self, rng: np.random.Generator, subject: int) -> int:
        """Draw one of a subject's volumes by weight."""
        own = self._entries_of_subject[subject]
        weight = np.array([self.entries[index].weight for index in own])
        return int(rng.choice(own, p=weight / weight.sum() if np.ptp(weight) else None))

    def batch(self, step: int, rows: slice = slice(None)) -> SampleBatch:
        """The samples of a step, or the part of them that one rank draws, on the CPU."""
        first_block = step // self.views.steps_per_read * self.batch_size
        drawn = list(enumerate(self.subjects(step)))[rows]
        return collate(
            [
                self._draw_sample(
                    self._cached_blocks(first_block + slot, int(subject)),
                    step * self.batch_size + slot,
                    subject,
                )
                for slot, subject in drawn
            ]
        )

    def monitoring_batches(self, samples: int, max_batch_size: int) -> list[SampleBatch]:
        """The snapshot samples, two of each subject, in batches of at most `max_batch_size`.

        No training step draws them, and they are the same at every step; their sample numbers are
        below zero.
        """
        half = -(-samples // 2)
        drawn_once = _draw_subjects(generator(self.seed, 0, "bank"), half, self._weights)
        subjects = np.tile(drawn_once, 2)[:samples]
        drawn = [
            self._draw_sample(self._read_blocks(-1 - slot, int(subject)), -1 - slot, subject)
            for slot, subject in enumerate(subjects)
        ]
        return [
            collate(drawn[first : first + max_batch_size])
            for first in range(0, samples, max_batch_size)
        ]

    def find_block(self, number: int, subject: int) -> tuple[int, Triple]:
        """The volume, by its index, and the first voxel of the block of a sample of a subject."""
        block = self._read_blocks(number, subject)[0]
        return block.entry_index, triple(block.start.tolist())

    def batch_at(self, number: int, index: int, start: Triple) -> SampleBatch:
        """The one sample of this number whose block begins at `start` of a volume.

        It depends on the seed, the number, the views and that block alone.
        """
        entry = self.entries[index]
        voxels = self._read_voxels(index, np.array(start), ALL_CHANNELS)
        blocks = (Block(index, entry.meta, voxels, np.array(start)),)
        subject = self.subject_codes[subject_name(entry)]
        return collate([self._draw_sample(blocks, number, subject)])

    def _draw_sample(
        self, blocks: tuple[Block, ...], number: int, subject: int | np.int64
    ) -> Sample:
        sample_key = SampleKey(self.seed, number)
        start = draw_starts(sample_key, self.views, blocks)
        meta = self._sample_meta(blocks, number, int(subject), start)
        blocks, start = draw_flips(sample_key, self.views, blocks, start)
        params = draw_params(sample_key, self.views, start, self._token_count)
        return Sample(blocks, params, meta)

    def _sample_meta(
        self, blocks: tuple[Block, ...], number: int, subject: int, start: NDArray[np.int64]
    ) -> SampleMeta:
        """The metadata of a sample whose crops begin at `start` (2, 3) of its blocks."""
        ends = (blocks[0], blocks[-1])  # the block of each view
        first = np.array([block.start for block in ends]) + start
        shapes = np.array([block.volume.shape for block in ends])
        centre = (first + np.array(self.views.crop_voxels) / 2) / shapes
        return SampleMeta(
            number=np.array(number),
            subject=torch.tensor(subject),
            metadata_features=torch.from_numpy(self.metadata_features[ends[0].entry_index]),
            second_features=torch.from_numpy(self.metadata_features[ends[1].entry_index]),
            shares_place=torch.tensor(blocks[-1].shares_place),
            has_partner=torch.tensor(len(blocks) > 1),
            entry_index=np.array([block.entry_index for block in ends]),
            centre=centre.astype(np.float32),
        )

    def _cached_blocks(self, number: int, subject: int) -> tuple[Block, ...]:
        """Blocks from the cache of the last steps, or read anew."""
        if self.views.steps_per_read == 1:
            return self._read_blocks(number, subject)
        with self._lock:
            known = self._block_cache.get(number)
        found = known or self._read_blocks(number, subject)
        with self._lock:
            self._block_cache[number] = found
            while len(self._block_cache) > 2 * self.batch_size:
                self._block_cache.popitem(last=False)
        return found

    def _read_blocks(self, number: int, subject: int) -> tuple[Block, ...]:
        """The block of a sample's views, and that of the second one where it is of another scan."""
        rng = generator(self.seed, number, "place")
        block = self._read_block(rng, self._draw_volume(rng, subject))
        if self.views.partner == "scan":
            return (block,)
        rng = generator(self.seed, number, "partner")
        visit = self._entries_of_visit.get(self.entries[block.entry_index].visit, [])
        others = [index for index in visit if index != block.entry_index]
        if not others:
            return (block,)
        return block, self._read_block_beside(block, int(rng.choice(others)))

    def _read_block(self, rng: np.random.Generator, index: int) -> Block:
        """A block with enough valid voxels: the first found, or the best of those tried.

        They are counted from mask bits alone; intensities are read of the chosen block only.
        """
        entry, size = self.entries[index], np.array(self.views.block_voxels)
        room = np.array(entry.shape) - size
        best: tuple[float, NDArray[np.int16], NDArray[np.int64]] | None = None
        for _ in range(MAX_READ_ATTEMPTS):
            # A side shorter than the block: it extends beyond both ends equally, within a voxel.
            start = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
            bits = self._read_voxels(index, start, MASK_CHANNEL)
            share = float(learnable_mask(bits).sum() / np.minimum(size, entry.shape).prod())
            if best is None or share > best[0]:
                best = share, bits, start
            if share >= self.views.min_valid:
                break
        assert best is not None
        _, bits, start = best
        grey = self._read_voxels(index, start, INTENSITY_CHANNEL)
        return Block(index, entry.meta, np.concatenate([grey, bits]), start)

    def _read_block_beside(self, block: Block, index: int) -> Block:
        """The block of another scan about the same millimetres.

        Without a common frame its centre is the same fraction of its volume.
        """
        entry, size = self.entries[index], np.array(self.views.block_voxels)
        centre = block.start + (size - 1) / 2
        place = same_place(self.entries[block.entry_index], centre, entry)
        shares_place = place is not None
        if place is None:
            fraction = (block.start + size / 2) / np.array(block.volume.shape)
            place = fraction * np.array(entry.shape) - 0.5
        start = np.rint(place - (size - 1) / 2).astype(np.int64)
        voxels = self._read_voxels(index, start, ALL_CHANNELS)
        return Block(index, entry.meta, voxels, start, shares_place)

    def _read_voxels(
        self, index: int, start: NDArray[np.int64], channels: slice
    ) -> NDArray[np.int16]:
        return self.reader.read_crop(
            self.entries[index].id, triple(start.tolist()), self.views.block_voxels, channels
        )


def subject_name(entry: Entry) -> str:
    """The subject of a volume, which is a subject of its own where none is known."""
    return entry.subject or entry.id


def _drawing_groups(
    replay: ReplayMix | None, names: Sequence[str], weights: NDArray[np.float64], batch_size: int
) -> list[tuple[int, NDArray[np.float64]]]:
    """Groups of subjects with the number of a step's samples that each gives, and its weights.

    Replayed subjects are drawn alike, whatever their roots weigh: else a small root that came last
    takes as much of the replay as the large one that is being forgotten.
    """
    if replay is None:
        return [(batch_size, weights)]
    is_new = np.array([name not in replay.earlier for name in names])
    is_replayed = np.array([name in replay.replayed for name in names])
    count = replay.count(batch_size)
    groups = [(batch_size - count, weights * is_new), (count, 1.0 * (is_replayed & (weights > 0)))]
    for (size, own), which in zip(groups, ("new", "earlier"), strict=True):
        if size and not own.any():
            raise UserError(
                f"training.replay finds no {which} subject to draw from: leave it out, or raise "
                "training.cohort where scans have come."
            )
    return [(size, own) for size, own in groups if size]


def _draw_subjects(
    rng: np.random.Generator, count: int, weights: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Draw subjects by weight; none is drawn again before all others have been."""
    drawn: list[NDArray[np.int64]] = []
    while count:
        # Exponential race: the order of a weighted draw without replacement.
        with np.errstate(divide="ignore"):
            arrival = rng.exponential(size=len(weights)) / weights
        order = np.argsort(arrival, kind="stable")[:count]
        drawn.append(order[np.isfinite(arrival[order])])
        count -= len(drawn[-1])
    return np.concatenate(drawn)
