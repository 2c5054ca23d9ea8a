"""Recolouring of views: random grey values for their classes of intensity, on their device.

The same place under other physics, so that features follow anatomy and not contrast. SynthSeg
(Billot et al. 2023, arXiv:2107.09559) draws such images from label maps; here classes are those of
intensity, so that no label is needed. What differs within a class still does, more or less, or the
other way round.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ssl_pipeline.views.collate import ViewParams

BINS, ITERATIONS = 256, 10  # of a histogram, and of k-means on it


def recolour(
    images: Float[Tensor, "views 1 z y x"], valid: Float[Tensor, "views z y x"], params: ViewParams
) -> Float[Tensor, "views 1 z y x"]:
    """Crops with the drawn views recoloured: the mean of each class becomes the value drawn.

    Voxels that are not valid stay as they are.
    """
    index = params.recoloured_index
    if not len(index):
        return images
    grey, measured = images[index, 0], valid[index] > 0
    classes = intensity_classes(grey, measured, params.class_values.shape[1])
    recoloured = grey
    drawn = zip(params.class_values.unbind(1), params.class_gains.unbind(1), strict=True)
    for number, (value, gain) in enumerate(drawn):
        inside = measured & (classes == number)
        total = torch.where(inside, grey, 0).sum((1, 2, 3))
        mean = total / inside.sum((1, 2, 3)).clamp(min=1)
        offset, factor = (each[:, None, None, None] for each in (value - gain * mean, gain))
        recoloured = torch.where(inside, torch.addcmul(offset, grey, factor), recoloured)
    result = images.clone()
    result[index, 0] = recoloured
    return result


def intensity_classes(
    grey: Float[Tensor, "n z y x"], measured: Bool[Tensor, "n z y x"], count: int
) -> Int[Tensor, "n z y x"]:
    """The class of each voxel, by k-means of the measured intensities of its crop.

    Classes are numbered from dark to bright, and some may be empty. Lloyd's iterations (1982, IEEE
    Trans. Inf. Theory 28) on a histogram from evenly spaced means: nothing is random, and a
    histogram of whole numbers is the same in any order of summation.
    """
    low = grey.masked_fill(~measured, torch.inf).amin((1, 2, 3), keepdim=True)
    high = grey.masked_fill(~measured, -torch.inf).amax((1, 2, 3), keepdim=True)
    share = ((grey - low) / (high - low)).nan_to_num(0.0).clamp(0, 1)  # one value: 0 / 0
    bins = (share * (BINS - 1)).round().long().flatten(1)
    voxels = grey.new_zeros(len(grey), BINS).scatter_add_(1, bins, measured.flatten(1).float())
    places = torch.linspace(0, 1, BINS, device=grey.device)
    means = ((torch.arange(count, device=grey.device) + 0.5) / count).expand(len(grey), count)
    for _ in range(ITERATIONS):
        weight = one_hot(_nearest(places, means), count) * voxels[..., None]
        total = weight.sum(1)
        moved = (weight * places[:, None]).sum(1) / total.clamp(min=1)
        means = torch.where(total > 0, moved, means)
    return _nearest(places, means).gather(1, bins).view_as(grey)


def _nearest(
    places: Float[Tensor, " bins"], means: Float[Tensor, "n classes"]
) -> Int[Tensor, "n bins"]:
    """The class whose mean is nearest to each place."""
    return (places[:, None] - means[:, None]).abs().argmin(dim=2)
