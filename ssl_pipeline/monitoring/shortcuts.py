"""Shortcuts of the losses that need no anatomy: intensities, position, site.

A shortcut is found by giving the same problem to something that sees nothing else: histograms
for intensities, empty crops for position. What they solve as well as the encoder needs no
encoder. High numbers are a warning and no proof: a body region has a histogram of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ssl_pipeline.monitoring.knn import ScoreWithChance, knn_accuracy
from ssl_pipeline.types import Triple
from ssl_pipeline.views.crops import Batch

BINS, LOW, HIGH = 64, -3.0, 3.0  # of model input, augmented; what lies outside is in the end bins
MIN_LOSS_DROP = 0.1  # nats below chance, under which a loss has learned nothing to be explained


def intensity_histograms(
    images: Float[Tensor, "views 1 z y x"], valid: Float[Tensor, "views z y x"]
) -> Float[Tensor, "views bins"]:
    """Square roots of the fractions of valid voxels in 64 bins of intensities.

    Rows have length 1 (0 where nothing is valid), and the product of two is the Bhattacharyya
    coefficient of their histograms, so cosines are a measure of their similarity.
    """
    share = (images.flatten(1) - LOW) / (HIGH - LOW)
    index = (share * BINS).long().clamp(0, BINS - 1)
    weight = valid.flatten(1)
    count = torch.zeros(len(images), BINS, device=images.device).scatter_add(1, index, weight)
    return (count / count.sum(dim=1, keepdim=True).clamp(min=1)).sqrt()


def retrieval_accuracy(
    first: Float[Tensor, "samples dim"], second: Float[Tensor, "samples dim"]
) -> ScoreWithChance:
    """How often the nearest of all other views by cosine is that of the same sample (top 1).

    The mean of both directions. Ties share the hit, so vectors that are all equal score chance,
    one over the number of samples.
    """
    similar = normalize(first.double(), dim=1) @ normalize(second.double(), dim=1).T
    found = (_top1(similar) + _top1(similar.T)) / 2
    return ScoreWithChance(found.item(), 1 / len(first))


def _top1(similar: Float[Tensor, "samples samples"]) -> Float[Tensor, ""]:
    """Share of rows whose diagonal is the largest, within rounding."""
    best = similar >= similar.amax(dim=1, keepdim=True) - 1e-9
    return (best.diagonal() / best.sum(dim=1)).mean()


@dataclass(frozen=True)
class PositionShortcut:
    """The local loss, in nats, of real, empty and swapped crops, and where all tokens are equal.

    Empty crops hold zeros; in swapped ones the second view shows another sample's content.
    """

    real: float
    empty: float
    swapped: float
    chance: float

    @property
    def empty_share(self) -> float:
        """Share of the drop from chance that positions alone reach; nan without a drop.

        Near 1 also in sound runs where overlap makes locations easy to guess, for content that
        varies is noise to a loss that position nearly solves.
        """
        return self._share(self.empty)

    @property
    def swapped_share(self) -> float:
        """Share of the drop that is left where content misleads; nan without a drop.

        1 for an encoder that never uses content; the lower, the more content decides.
        """
        return self._share(self.swapped)

    def _share(self, loss: float) -> float:
        drop = self.chance - self.real
        return (self.chance - loss) / drop if drop > MIN_LOSS_DROP else math.nan


@torch.no_grad()
def measure_position_shortcut(
    local_loss: Callable[[Tensor], Tensor], images: Float[Tensor, "views 1 z y x"], chance: float
) -> PositionShortcut:
    """What `local_loss` gives for the images, for zeros, and with the second views exchanged.

    `images` holds all first views, then all second ones; `chance` is the loss where all tokens are
    alike. Views overlap more often near the middle, so positions alone lower the loss: on crops of
    two CTs an encoder that was trained on zeros came from 2.26 to 0.52, one trained on the crops to
    0.50, yet kept 0.7 of its drop where contents were swapped.
    """
    first, second = images.chunk(2)
    real, empty = (local_loss(shown).item() for shown in (images, torch.zeros_like(images)))
    if len(second) < 2:
        return PositionShortcut(real, empty, math.nan, chance)  # there is nothing to swap with
    misled = local_loss(torch.cat([first, second.roll(1, 0)])).item()
    return PositionShortcut(real, empty, misled, chance)


def separate_views(batch: Batch, patches: float, patch: Triple) -> Batch:
    """The batch as if every second view lay so many patches beside its first one, along x.

    Crops without content then differ only in the position that an encoder gets. To one that knows
    positions in the crop alone, the token at the same position of the other crop seems right; where
    it lies far enough to be a negative, the loss is above chance.
    """
    first, _ = batch.start_mm.chunk(2)
    step = torch.zeros_like(first)
    step[:, 2] = patches * patch[2] * batch.spacing_mm[: len(first), 2]
    return replace(batch, start_mm=torch.cat([first, first + step]))


@dataclass(frozen=True)
class SiteAccuracy:
    """Balanced accuracies on the site: by embeddings, by histograms, by guessing."""

    embedding: float
    histogram: float
    chance: float


def site_accuracy(
    vectors: Float[Tensor, "samples dim"],
    histogram: Float[Tensor, "samples bins"],
    site: Int[Tensor, " samples"],
    subject: Int[Tensor, " samples"],
) -> SiteAccuracy:
    """How well kNN predicts the site of a sample; nan where there is one site.

    Sites that show different parts of the body differ in anatomy, which is no fault.
    """
    by_embedding = knn_accuracy(vectors, site, subject)
    by_histogram = knn_accuracy(histogram, site, subject)
    return SiteAccuracy(by_embedding.score, by_histogram.score, by_embedding.chance)
