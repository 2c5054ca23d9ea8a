"""Grey-value augmentation, on the device that trains, each view apart.

Amounts are drawn on the host by counter (`draws`); the work is batched. Padding and voxels that
were not stored keep their value, so that augmentation never tells where they are.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d, interpolate

from ssl_pipeline.views.blocks import Blocks
from ssl_pipeline.views.cut import Batch
from ssl_pipeline.views.draws import CHANGES

LOW, HIGH = -2.0, 2.0  # the range of model input that counts as from black to white


def augment(batch: Batch, blocks: Blocks) -> Float[Tensor, "views 1 z y x"]:
    """The batch's crops with the changes that were drawn for them."""
    host = dict(zip(CHANGES, blocks.changed.T, strict=True))
    amount = blocks.changes[:, :, None, None, None, None].unbind(dim=1)
    by = dict(zip(CHANGES, amount, strict=True))
    images = batch.clean
    if host["bias"].any():
        images = _shaded(images, blocks.field, by["bias"])
    images = _blurred(images, host["blur"])
    images = _bent(images, by["gamma"])
    if host["low"].any() or host["high"].any():
        images = _windowed(images, by["low"], by["high"])
    images = images * by["contrast"] + by["brightness"]
    images = _noisy(images, host["noise"], blocks.noise_key)
    return torch.where(batch.valid[:, None] > 0, images, batch.clean)


def _shaded(images: Tensor, field: Tensor, bias: Tensor) -> Tensor:
    """Grey values above black times a smooth field of gains."""
    z, y, x = images.shape[2:]
    smooth = interpolate(field[:, None], (z, y, x), mode="trilinear", align_corners=True)
    return (images - LOW) * torch.exp2(smooth * bias) + LOW


def _bent(images: Tensor, gamma: Tensor) -> Tensor:
    """A gamma curve between LOW and HIGH; what lies outside is left as it is."""
    share = ((images - LOW) / (HIGH - LOW)).clamp(0, 1)
    return images + (share**gamma - share) * (HIGH - LOW)


def _windowed(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The range less a share at its ends, spread over the whole; beyond it black and white."""
    share = (images - LOW) / (HIGH - LOW)
    cut = ((share - low) / (1 - low - high)).clamp(0, 1) * (HIGH - LOW) + LOW
    return torch.where((low > 0) | (high > 0), cut, images)


def _noisy(images: Tensor, sigma: NDArray[np.float32], keys: NDArray[np.int64]) -> Tensor:
    """Normal noise on the views whose sigma is above zero, of a generator each."""
    chosen = np.flatnonzero(sigma)
    if not len(chosen):
        return images
    noise, source = torch.zeros_like(images), torch.Generator(images.device)
    for view in chosen.tolist():
        source.manual_seed(int(keys[view]))
        noise[view].normal_(0, float(sigma[view]), generator=source)
    return images + noise


def _blurred(images: Tensor, sigmas: NDArray[np.float32]) -> Tensor:
    """Separable Gaussian blur of the views whose sigma is above zero, edges replicated."""
    chosen = np.flatnonzero(sigmas)
    if not len(chosen):
        return images
    radius = 3
    taps = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = np.exp(-0.5 * (taps / sigmas[chosen, None]) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    kernel = torch.from_numpy(weights[:, None]).to(images)
    part = images[chosen, 0]
    for _ in range(3):  # blur the last axis, then bring the next one there
        n, a, b, c = part.shape
        rows = torch.nn.functional.pad(part.reshape(n, a * b, c), (radius, radius), "replicate")
        rows = rows.permute(1, 0, 2)
        part = conv1d(rows, kernel, groups=n).permute(1, 0, 2).reshape(n, a, b, c)
        part = part.permute(0, 3, 1, 2)
    result = images.clone()
    result[chosen, 0] = part
    return result
