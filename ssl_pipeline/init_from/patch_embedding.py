"""Resizing of a patch embedding to another patch size.

A patch of ours is brought to the size that the kernel was learned for, and the kernel answers to
that; as both steps are linear, they are one kernel of our size. Where our patch is smaller, it is
enlarged by linear interpolation; where it is larger, it is shrunk by the least-squares inverse of
the interpolation, so that an enlarged patch gives exactly the token of the small one (FlexiViT's
pseudo-inverse resize, Beyer et al. 2023, arXiv:2212.08013). The pseudo-inverse both ways, as there,
was rejected: from 14 to 8 voxels it drops some, and a mean over the patch comes out as 0.72 of it.

Interpolation goes on linearly beyond the middles of the outer voxels: constants and ramps come out
exactly. From one slice it makes equal slices, so a 2D kernel is inflated by the same rule.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_pipeline.types import Triple


def resize_patch_embedding(
    kernel: Float[Tensor, "width z y x"], size: Triple
) -> Float[Tensor, "width new_z new_y new_x"]:
    """The kernel for patches of `size` voxels; itself where it has that size."""
    if kernel.shape[1:] == size:
        return kernel
    axes = [_resampling_matrix(ours, own) for ours, own in zip(size, kernel.shape[1:], strict=True)]
    new: Tensor = torch.einsum("wabc,az,by,cx->wzyx", kernel.double(), *axes).float()
    return new


def _resampling_matrix(new_size: int, kernel_size: int) -> Float[Tensor, "own ours"]:
    """Bring `ours` samples of an axis to the kernel's `own`."""
    if new_size <= kernel_size:
        return _interpolation_matrix(new_size, kernel_size)
    inverse: Tensor = torch.linalg.pinv(_interpolation_matrix(kernel_size, new_size))
    return inverse


def _interpolation_matrix(old_size: int, new_size: int) -> Float[Tensor, "new old"]:
    """Linear interpolation between samples at the middles of equal parts of an axis."""
    if old_size == 1:
        return torch.ones(new_size, 1, dtype=torch.float64)
    places = (torch.arange(new_size, dtype=torch.float64) + 0.5) * old_size / new_size - 0.5
    left = places.floor().clamp(0, old_size - 2)
    matrix = torch.zeros(new_size, old_size, dtype=torch.float64)
    rows, columns = torch.arange(new_size), left.long()
    matrix[rows, columns] = 1 - (places - left)
    matrix[rows, columns + 1] = places - left
    return matrix
