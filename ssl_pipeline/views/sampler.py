"""Which places a training step sees: subjects, volumes, blocks, and what is drawn for their views.

A step's samples come from different subjects where there are enough, drawn by weight without
replacement, because contrast between subjects is what the global loss learns from. Of each sample a
block is read that has room for two overlapping crops; they are cut from it by `cut`, on the device
that trains. Everything is a function of (seed, sample number): see `randomness`.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.prepare import shown
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.store.shard import BITS, INTENSITY
from ssl_pipeline.views.blocks import Blocks, Pair, stacked
from ssl_pipeline.views.config import Triple, Views
from ssl_pipeline.views.draws import Sample, pair
from ssl_pipeline.views.randomness import generator
from ssl_pipeline.views.tokens import grid_of

ATTEMPTS = 10  # places tried for one that is valid enough; the best of them is taken


@dataclass(frozen=True)
class _Place:
    """What was read: voxels (2, z, y, x) of a block, and where it begins in its volume."""

    entry: int
    voxels: NDArray[np.int16]
    start: NDArray[np.int64]


class Sampler:
    """Draws the batches of a run; `traits` (entries, traits) is what makes subjects alike.

    Raises UserError where no volume is given or the crop is no multiple of the patch.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        reader: CropReader,
        views: Views,
        patch: Triple,
        *,
        pairs: int,
        seed: int,
        traits: NDArray[np.float32] | None = None,
    ) -> None:
        if not entries:
            raise UserError("No volume is left to train on: see the inventory for the reasons.")
        if any(c % p for c, p in zip(views.crop_voxels, patch, strict=True)):
            raise UserError(
                f"views.crop_voxels is {list(views.crop_voxels)}, no multiple of the patch, "
                f"{list(patch)}: choose sides that the patch divides."
            )
        self.entries, self.reader, self.views, self.patch = list(entries), reader, views, patch
        self.pairs, self.seed = pairs, seed
        self.traits = np.zeros((len(entries), 0), np.float32) if traits is None else traits
        names = dict.fromkeys(e.subject or e.id for e in entries)
        self._code = {name: code for code, name in enumerate(names)}
        self._of_subject: list[list[int]] = [[] for _ in names]
        for index, entry in enumerate(entries):
            self._of_subject[self._code[entry.subject or entry.id]].append(index)
        self._weight = self._subject_weights()
        self._tokens = int(np.prod(grid_of(views.crop_voxels, patch)))
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._lock = Lock()

    def _subject_weights(self) -> NDArray[np.float64]:
        """Each root has its weight as a whole, shared alike by its subjects.

        Weights of scans come on top: a subject of twice the mean weight is drawn twice as often.
        """
        root_of = [self.entries[indices[0]].root for indices in self._of_subject]
        count = Counter(root_of)
        weight = np.array(
            [
                np.mean([self.entries[index].weight for index in indices]) / count[root]
                for indices, root in zip(self._of_subject, root_of, strict=True)
            ]
        )
        if not weight.sum() > 0:
            raise UserError(
                "Every scan has a sampling_weight of 0: give at least one a weight above 0."
            )
        normed: NDArray[np.float64] = weight / weight.sum()
        return normed

    def subjects(self, step: int) -> NDArray[np.int64]:
        """The subjects of a step's samples, (pairs,); all different where there are enough.

        Steps that share what they read share their subjects.
        """
        return self._drawn(generator(self.seed, step // self.views.reuse, "subjects"), self.pairs)

    def _drawn(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """So many subjects by weight, each drawn again only when all others have been."""
        drawn: list[NDArray[np.int64]] = []
        while count:
            # Exponential race: the order of a weighted draw without replacement.
            with np.errstate(divide="ignore"):
                arrival = rng.exponential(size=len(self._weight)) / self._weight
            order = np.argsort(arrival, kind="stable")[:count]
            drawn.append(order[np.isfinite(arrival[order])])
            count -= len(drawn[-1])
        return np.concatenate(drawn)

    def _volume(self, rng: np.random.Generator, subject: int) -> int:
        """One of a subject's volumes by weight."""
        own = self._of_subject[subject]
        weight = np.array([self.entries[index].weight for index in own])
        return int(rng.choice(own, p=weight / weight.sum() if np.ptp(weight) else None))

    def batch(self, step: int, part: slice = slice(None)) -> Blocks:
        """The samples of a step, or the part of them that one rank draws, on the CPU."""
        place_of = step // self.views.reuse * self.pairs
        drawn = list(enumerate(self.subjects(step)))[part]
        return stacked(
            [
                self._pair(self._place(place_of + slot, int(who)), step * self.pairs + slot, who)
                for slot, who in drawn
            ]
        )

    def bank(self, places: int, most: int) -> list[Blocks]:
        """Places that no step draws, two of each subject, in parts of at most `most`.

        They are the same in every step, to measure on; their sample numbers are below zero.
        """
        half = -(-places // 2)
        subjects = np.tile(self._drawn(generator(self.seed, 0, "bank"), half), 2)[:places]
        pairs = [
            self._pair(self._read(-1 - slot, int(who)), -1 - slot, who)
            for slot, who in enumerate(subjects)
        ]
        return [stacked(pairs[first : first + most]) for first in range(0, places, most)]

    def _pair(self, place: _Place, number: int, subject: int | np.int64) -> Pair:
        traits = self.traits[place.entry]
        sample = Sample(self.seed, number, int(subject), traits, place.entry)
        meta = self.entries[place.entry].meta
        return pair(sample, self.views, meta, place.voxels, place.start, self._tokens)

    def _place(self, number: int, subject: int) -> _Place:
        """Read, or still there from a step before; those of the last steps are kept."""
        if self.views.reuse == 1:
            return self._read(number, subject)
        with self._lock:
            known = self._places.get(number)
        found = known or self._read(number, subject)
        with self._lock:
            self._places[number] = found
            while len(self._places) > 2 * self.pairs:
                self._places.popitem(last=False)
        return found

    def _read(self, number: int, subject: int) -> _Place:
        """A block with enough stored voxels: the first found, or the best of those tried.

        Mask bits alone say how many it has; only what is taken has its intensities read.
        """
        rng = generator(self.seed, number, "place")
        index = self._volume(rng, subject)
        entry, size = self.entries[index], np.array(self.views.block_voxels)
        room = np.array(entry.shape) - size
        best: tuple[float, NDArray[np.int16], NDArray[np.int64]] | None = None
        for _ in range(ATTEMPTS):
            # A side shorter than the block: it reaches over both ends alike, within a voxel.
            start = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
            bits = self.reader.block(entry.id, _triple(start), self.views.block_voxels, BITS)
            share = float(shown(bits).sum() / np.minimum(size, entry.shape).prod())
            if best is None or share > best[0]:
                best = share, bits, start
            if share >= self.views.min_valid:
                break
        assert best is not None
        _, bits, start = best
        grey = self.reader.block(entry.id, _triple(start), self.views.block_voxels, INTENSITY)
        return _Place(index, np.concatenate([grey, bits]), start)


def _triple(values: NDArray[np.int64]) -> Triple:
    z, y, x = (int(v) for v in values)
    return z, y, x
