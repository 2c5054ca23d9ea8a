"""Grey-value augmentation, on the device that trains, each view apart.

Parameters are drawn on the host by counter (a few numbers a sample); the work is batched. Padding
and voxels that were not stored keep their value, so that augmentation never tells where they are.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d

from ssl_pipeline.views.config import Intensity
from ssl_pipeline.views.randomness import generator, key
from ssl_pipeline.views.sampler import Batch

LOW, HIGH = -2.0, 2.0  # the range of model input between which gamma bends grey values


def augment(batch: Batch, section: Intensity, seed: int) -> Float[Tensor, "views 1 z y x"]:
    """The batch's crops with changed contrast, brightness, gamma, noise and blur."""
    drawn = np.stack([_draw(section, seed, int(n), v) for v in (0, 1) for n in batch.number])
    amount = torch.from_numpy(drawn).to(batch.clean)[:, :, None, None, None, None]
    contrast, brightness, gamma, noise, blur = amount.unbind(dim=1)
    images = batch.clean
    if section.blur_share:
        images = _blurred(images, blur.flatten())
    images = _bent(images, gamma) * contrast + brightness
    if section.noise_share:
        images = images + noise * _noise(batch, noise.flatten(), seed)
    return torch.where(batch.valid[:, None] > 0, images, batch.clean)


def _draw(section: Intensity, seed: int, number: int, view: int) -> NDArray[np.float32]:
    """Contrast factor, brightness shift, gamma's exponent, noise sigma, blur sigma of one view."""
    rng = generator(seed, number, f"intensity {view}")
    symmetric = rng.uniform(-1, 1, 3) * (section.contrast, section.brightness, section.gamma)
    noisy, blurred = rng.random(2) < (section.noise_share, section.blur_share)
    noise, blur = rng.random(2) * (section.noise * noisy, section.blur_voxels * blurred)
    return np.array(
        [1 + symmetric[0], symmetric[1], 2 ** symmetric[2], noise, blur], dtype=np.float32
    )


def _bent(images: Tensor, gamma: Tensor) -> Tensor:
    """A gamma curve between LOW and HIGH; what lies outside is left as it is."""
    share = ((images - LOW) / (HIGH - LOW)).clamp(0, 1)
    return images + (share**gamma - share) * (HIGH - LOW)


def _noise(batch: Batch, sigma: Tensor, seed: int) -> Tensor:
    """Standard normal noise, drawn only for the views whose sigma is above zero."""
    noise = torch.zeros_like(batch.clean, device="cpu")
    for index in torch.nonzero(sigma.cpu()).flatten().tolist():
        view, pair = divmod(index, len(batch.number))
        source = torch.Generator()
        number = int(batch.number[pair])
        source.manual_seed(key(seed, number, f"noise {view}") % 2**63)
        noise[index].normal_(generator=source)
    return noise.to(batch.clean.device)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur of the views whose sigma is above zero, edges replicated."""
    chosen = torch.nonzero(sigma).flatten()
    if not len(chosen):
        return images
    radius = 3
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma[chosen, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, None]
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
