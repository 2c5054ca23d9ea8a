"""Which crops a training step sees: subjects, places, pairs of views and visible tokens.

A step's samples come from different subjects where there are enough, drawn by weight without
replacement, because contrast between subjects is what the global loss learns from. Each sample is
two overlapping crops read at once. Everything is a function of (seed, sample number): see
`randomness`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.prepare import FOREGROUND, model_input, shown
from ssl_pipeline.store.catalog import Entry
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.views.config import Triple, Views
from ssl_pipeline.views.randomness import generator
from ssl_pipeline.views.tokens import choose_visible, grid_of

ATTEMPTS = 10  # places tried for one that is valid enough; the best of them is taken


@dataclass(frozen=True)
class Batch:
    """Two views of each of B places; tensors hold all first views, then all second ones."""

    clean: Float[Tensor, "views 1 z y x"]  # model input before augmentation
    valid: Float[Tensor, "views z y x"]  # 1 where a voxel was measured and not anonymised
    foreground: Float[Tensor, "views z y x"]  # 1 inside the body
    visible: Int[Tensor, "views kept"]  # tokens that the encoder sees
    spacing_mm: Float[Tensor, "views 3"]  # (z, y, x)
    start_mm: Float[Tensor, "views 3"]  # where a crop begins, in the frame that its pair shares
    subject: Int[Tensor, " pairs"]  # equal numbers, equal subjects
    number: Int[Tensor, " pairs"]  # global sample numbers

    def to(self, device: str) -> "Batch":
        """The same batch on another device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class _View:
    clean: NDArray[np.float32]
    valid: NDArray[np.float32]
    foreground: NDArray[np.float32]
    visible: NDArray[np.int64]
    start_mm: NDArray[np.float32]


class Sampler:
    """Draws the batches of a run.

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
        names = dict.fromkeys(e.subject or e.id for e in entries)
        self._code = {name: code for code, name in enumerate(names)}
        self._of_subject: list[list[int]] = [[] for _ in names]
        for index, entry in enumerate(entries):
            self._of_subject[self._code[entry.subject or entry.id]].append(index)
        self._weight = self._subject_weights()
        self.kept = int(views.keep * np.prod(grid_of(views.crop_voxels, patch)))

    def _subject_weights(self) -> NDArray[np.float64]:
        """Each root has its weight as a whole, shared by its subjects alike."""
        root_of = [self.entries[indices[0]].root for indices in self._of_subject]
        count = Counter(root_of)
        weight = np.array(
            [
                self.entries[indices[0]].weight / count[root]
                for indices, root in zip(self._of_subject, root_of, strict=True)
            ]
        )
        if not weight.sum() > 0:
            raise UserError("Every root has weight 0: give at least one a weight above 0.")
        normed: NDArray[np.float64] = weight / weight.sum()
        return normed

    def subjects(self, step: int) -> NDArray[np.int64]:
        """The subjects of a step's samples, (pairs,); all different where there are enough."""
        drawn: list[NDArray[np.int64]] = []
        rounds = generator(self.seed, step, "subjects")
        missing = self.pairs
        while missing:
            # Exponential race: the order of a weighted draw without replacement.
            with np.errstate(divide="ignore"):
                arrival = rounds.exponential(size=len(self._weight)) / self._weight
            order = np.argsort(arrival, kind="stable")[:missing]
            drawn.append(order[np.isfinite(arrival[order])])
            missing -= len(drawn[-1])
        return np.concatenate(drawn)

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The samples of a step, or the part of them that one rank draws, as tensors on the CPU."""
        subjects = self.subjects(step)[part]
        numbers = (step * self.pairs + np.arange(self.pairs))[part]
        pairs, spacing = [], []
        for number, subject in zip(numbers, subjects, strict=True):
            rng = generator(self.seed, int(number), "volume")
            entry = self.entries[int(rng.choice(self._of_subject[int(subject)]))]
            pairs.append(self._pair(entry, int(number)))
            spacing.append(entry.meta.spacing_mm[::-1])
        views = [first for first, _ in pairs] + [second for _, second in pairs]

        def stack(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(view, name) for view in views]))

        return Batch(
            clean=stack("clean")[:, None],
            valid=stack("valid"),
            foreground=stack("foreground"),
            visible=stack("visible"),
            spacing_mm=torch.tensor(spacing + spacing, dtype=torch.float32),
            start_mm=stack("start_mm"),
            subject=torch.from_numpy(subjects.copy()),
            number=torch.from_numpy(numbers),
        )

    def _pair(self, entry: Entry, number: int) -> tuple[_View, _View]:
        """Two views of a place with enough stored voxels: the first found, or the best tried."""
        rng = generator(self.seed, number, "place")
        best: tuple[float, NDArray[np.int16], list[NDArray[np.int64]]] | None = None
        for _ in range(ATTEMPTS):
            starts = self._starts(entry, rng)
            low = np.minimum(*starts)
            size = np.maximum(*starts) + np.array(self.views.crop_voxels) - low
            block = self.reader.block(entry.id, _triple(low), _triple(size))
            share = float(shown(block[1]).mean())
            if best is None or share > best[0]:
                best = share, block, [start - low for start in starts]
            if share >= self.views.min_valid:
                break
        assert best is not None
        _, block, inside = best
        block = self._flipped(block, inside, number)
        first, second = (
            self._view(entry, block, start, number, view) for view, start in enumerate(inside)
        )
        return first, second

    def _starts(self, entry: Entry, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """First voxels (z, y, x) of two crops that overlap as much as the study asks."""
        crop = np.array(self.views.crop_voxels)
        room = np.array(entry.shape) - crop
        # A side shorter than the crop: the crop reaches over both ends alike, within a voxel.
        first = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
        # The shared share is the product over the axes of 1 - offset / crop: split it at random.
        share = rng.uniform(*self.views.overlap)
        part = 1 - share ** rng.dirichlet(np.ones(3))
        offset = np.rint(rng.choice((-1, 1), 3) * part * crop).astype(np.int64)
        second = np.where(room > 0, np.clip(first + offset, 0, np.maximum(room, 0)), first + offset)
        return [first, second]

    def _flipped(
        self, block: NDArray[np.int16], starts: list[NDArray[np.int64]], number: int
    ) -> NDArray[np.int16]:
        """Mirror the block along the axes that the study allows, each with even odds."""
        rng = generator(self.seed, number, "flip")
        for axis, name in enumerate("zyx"):
            if name in self.views.flip and rng.random() < 0.5:
                block = np.flip(block, axis + 1)
                for start in starts:
                    start[axis] = block.shape[axis + 1] - self.views.crop_voxels[axis] - start[axis]
        return block

    def _view(
        self,
        entry: Entry,
        block: NDArray[np.int16],
        start: NDArray[np.int64],
        number: int,
        view: int,
    ) -> _View:
        window = tuple(slice(s, s + c) for s, c in zip(start, self.views.crop_voxels, strict=True))
        crop = block[(slice(None), *window)]
        valid = shown(crop[1]).astype(np.float32)
        foreground = (crop[1] & FOREGROUND > 0).astype(np.float32)
        visible = choose_visible(
            _shares(valid, self.patch),
            _shares(foreground, self.patch),
            count=self.kept,
            background=self.views.background,
            rng=generator(self.seed, number, f"mask {view}"),
        )
        spacing = np.array(entry.meta.spacing_mm[::-1])
        clean = model_input(crop, entry.meta)
        return _View(clean, valid, foreground, visible, (start * spacing).astype(np.float32))


def _triple(values: NDArray[np.int64]) -> Triple:
    z, y, x = (int(v) for v in values)
    return z, y, x


def _shares(mask: NDArray[np.float32], patch: Triple) -> NDArray[np.float32]:
    """Share of each patch's voxels that are set, (tokens,)."""
    z, y, x = mask.shape
    (gz, gy, gx), (pz, py, px) = grid_of((z, y, x), patch), patch
    shares: NDArray[np.float32] = mask.reshape(gz, pz, gy, py, gx, px).mean(axis=(1, 3, 5)).ravel()
    return shares
