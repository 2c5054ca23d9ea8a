"""Sliding-window inference with Gaussian weights over a whole volume.

Only the planes that a row of windows touches are held; planes that no later window reaches are
handed on. A scan of 512 x 512 x 600 voxels and eight classes takes under 1 GiB with a window of 48,
where the whole would take 5.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.types import Triple

SIGMA = 1 / 8  # of the Gaussian weights, in sides of the window
MIN_WEIGHT = 1e-3  # as MONAI has it, so that its bundle of a task model gives the same labels


@dataclass(frozen=True)
class WindowSettings:
    """Size of sliding windows, and how a model goes over them."""

    size: Triple  # (z, y, x), voxels
    overlap: float  # share of a window that the next one overlaps
    batch_size: int  # windows of a forward pass


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Starts of windows along one axis; a window that is larger reaches over both ends."""
    if size <= window:
        return [-((window - size) // 2)]
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, size - window, step), size - window]


def gaussian_weights(window: Triple) -> Tensor:
    """Weights (z, y, x) of a window's probabilities, 1 at the centre and positive everywhere."""
    weight = torch.ones(())
    for side in window:
        place = (torch.arange(side) - (side - 1) / 2) / (side * SIGMA)
        weight = weight[..., None] * torch.exp(-0.5 * place**2)
    return weight.clamp(min=MIN_WEIGHT)


def sliding_window_inference(
    shape: Triple, settings: WindowSettings, probabilities: Callable[[Sequence[Triple]], Tensor]
) -> Iterator[Slab]:
    """The probabilities of classes of a volume of `shape` (z, y, x), plane after plane.

    `probabilities` maps starts of windows to (windows, classes, z, y, x) on the CPU.
    """
    window = settings.size
    rows, *plane = (
        window_starts(s, w, settings.overlap) for s, w in zip(shape, window, strict=True)
    )
    origin = [axis[0] for axis in (rows, *plane)]
    whole = [max(s, w) for s, w in zip(shape, window, strict=True)]
    weight = gaussian_weights(window)
    _, inside_y, inside_x = (slice(-o, -o + s) for o, s in zip(origin, shape, strict=True))
    votes = torch.zeros(0)
    for row, z in enumerate(rows):
        windows = [(z, y, x) for y, x in product(*plane)]
        for first in range(0, len(windows), settings.batch_size):
            places = windows[first : first + settings.batch_size]
            found = probabilities(places) * weight
            if not len(votes):
                votes = torch.zeros(found.shape[1], window[0], whole[1], whole[2])
            for (_, y, x), vote in zip(places, found, strict=True):
                y, x = y - origin[1], x - origin[2]
                votes[:, :, y : y + window[1], x : x + window[2]] += vote
        following = rows[row + 1] if row + 1 < len(rows) else z + window[0]
        final = following - z
        known = votes[:, max(0, -z) : min(final, shape[0] - z), inside_y, inside_x]
        yield Slab(max(0, z), (known / known.sum(dim=0)).numpy())
        votes = torch.cat([votes[:, final:], torch.zeros_like(votes[:, :final])], dim=1)
