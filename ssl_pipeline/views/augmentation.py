"""Intensity augmentation on the training device, independently for each view.

Parameters are drawn on the host by counter (`augmentation_params`); the work is batched. Padding
and voxels that were not stored keep their value, so augmentation never reveals where they are.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_pipeline.types import Triple
from ssl_pipeline.views.collate import BLUR_RADIUS, IntensityParams, SampleBatch, ViewParams
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.crops import Batch, crop_views
from ssl_pipeline.views.recolour import recolour
from ssl_pipeline.views.sample import INTENSITY_PARAMS

LOW, HIGH = -2.0, 2.0  # the range of model input that counts as from black to white
EPSILON = 1e-30


def augmented_views(
    samples: SampleBatch, views: Views, patch: Triple
) -> tuple[Batch, Float[Tensor, "views 1 z y x"]]:
    """Crop the views of samples, and augment their images, on the device of the samples."""
    batch = crop_views(samples, views, patch)
    return batch, augment(batch, samples.params)


def augment(batch: Batch, params: ViewParams) -> Float[Tensor, "views 1 z y x"]:
    """Recolour the crops of a batch and change their intensities, by the parameters drawn."""
    return augment_intensities(recolour(batch.clean, batch.valid, params), batch.valid, params)


def augment_intensities(
    clean: Float[Tensor, "views 1 z y x"],
    valid: Float[Tensor, "views z y x"],
    params: IntensityParams,
) -> Float[Tensor, "views 1 z y x"]:
    """Apply intensity parameters to crops; voxels that are not valid stay as they are."""
    host = dict(zip(INTENSITY_PARAMS, params.host_intensity_params.T, strict=True))
    amount = params.intensity_params[:, :, None, None, None, None].unbind(dim=1)
    by = dict(zip(INTENSITY_PARAMS, amount, strict=True))
    images = clean
    if host["bias"].any():
        images = _apply_bias_field(images, params.bias_field, by["bias"])
    if host["blur"].any():
        images = _apply_blur(images, params.blur_index, params.blur_taps)
    if (host["low_resolution"] > 1).any():
        images = _apply_low_resolution(images, host["low_resolution"])
    images = _apply_gamma(images, by["gamma"])
    if host["low"].any() or host["high"].any():
        images = _apply_window(images, by["low"], by["high"])
    images = torch.addcmul(by["brightness"], images, by["contrast"])
    if host["noise"].any():
        _add_noise(images, host["noise"], params.noise_seeds)
    return torch.lerp(clean, images, valid[:, None])  # exact at 0 and at 1


def _apply_bias_field(images: Tensor, bias_field: Tensor, bias: Tensor) -> Tensor:
    """Grey values above black times a smooth field of gains."""
    z, y, x = images.shape[2:]
    smooth = interpolate(bias_field[:, None], (z, y, x), mode="trilinear", align_corners=True)
    return (images - LOW) * torch.exp2(smooth * bias) + LOW


def _apply_gamma(images: Tensor, gamma: Tensor) -> Tensor:
    """A gamma curve between LOW and HIGH; what lies outside is left as it is.

    The power is taken by logarithms, which a CPU does in half the time, but not those of zero.
    """
    share = images.sub(LOW).mul_(1 / (HIGH - LOW)).clamp_(EPSILON, 1)
    curve = share.log2().mul_(gamma).exp2_()
    return images.add(curve.sub_(share), alpha=HIGH - LOW)


def _apply_window(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Cut a fraction off both ends of the intensity range, and stretch the rest over all of it."""
    share = (images - LOW) / (HIGH - LOW)
    cut = ((share - low) / (1 - low - high)).clamp(0, 1) * (HIGH - LOW) + LOW
    return torch.where((low > 0) | (high > 0), cut, images)


def _add_noise(images: Tensor, sigma: NDArray[np.float32], keys: NDArray[np.int64]) -> None:
    """Normal noise on the views whose sigma is above zero, of a generator each, in place."""
    noise, source = torch.empty_like(images[0]), torch.Generator(images.device)
    for view in np.flatnonzero(sigma).tolist():
        source.manual_seed(int(keys[view]))
        images[view] += noise.normal_(0, float(sigma[view]), generator=source)


def _apply_low_resolution(images: Tensor, voxel_size: NDArray[np.float32]) -> Tensor:
    """The views whose voxel size is above one, sampled as coarsely and interpolated back."""
    result, size = images.clone(), images.shape[2:]
    for view in np.flatnonzero(voxel_size > 1).tolist():
        coarse = [max(1, round(n / float(voxel_size[view]))) for n in size]
        sampled = interpolate(images[view : view + 1], coarse, mode="nearest-exact")
        result[view] = interpolate(sampled, size, mode="trilinear")[0]
    return result


def _apply_blur(images: Tensor, blur_index: Tensor, taps: Tensor) -> Tensor:
    """Separable blur of the chosen views by weights (chosen, taps), edges replicated.

    Shifted sums: half the time of `conv1d` with a group a view on a CPU.
    """
    first, *others = taps[..., None, None, None].unbind(dim=1)
    part = images[blur_index, 0]
    for axis in (3, 2, 1):
        length = part.shape[axis]
        near = torch.arange(-BLUR_RADIUS, length + BLUR_RADIUS, device=part.device)
        wide = part.index_select(axis, near.clamp(0, length - 1))
        part = wide.narrow(axis, 0, length) * first
        for tap, weight in enumerate(others, start=1):
            part.addcmul_(wide.narrow(axis, tap, length), weight)
    result = images.clone()
    result[blur_index, 0] = part
    return result
