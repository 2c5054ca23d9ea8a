"""A resized patch embedding gives constants, ramps and enlarged patches the token they had."""

import pytest
import torch

from ssl_pipeline.init_from.patch_embedding import resize_patch_embedding

SIZES = [
    ((16, 16, 16), (8, 8, 8)),
    ((14, 14, 14), (8, 8, 8)),  # no whole factor
    ((4, 4, 4), (8, 8, 8)),
    ((8, 8, 8), (2, 12, 5)),  # smaller, larger, odd
    ((1, 16, 16), (8, 8, 8)),  # a 2D kernel
    ((8, 8, 8), (1, 8, 8)),
]


def kernel_of(size, seed=0):
    torch.manual_seed(seed)
    return torch.randn(5, *size)


def voxel_centres(size):
    """Places (z, y, x) of the voxels' middles, of a patch of side 1."""
    axes = [(torch.arange(n) + 0.5) / n for n in size]
    return torch.meshgrid(*axes, indexing="ij")


def tokens(kernel, patch):
    return torch.einsum("wzyx,zyx->w", kernel.double(), patch.double())


@pytest.mark.parametrize("own, ours", SIZES, ids=str)
def test_constants_and_ramps_keep_their_tokens(own, ours):
    kernel = kernel_of(own)
    new = resize_patch_embedding(kernel, ours)
    assert new.shape == (5, *ours)
    one = torch.ones(())
    assert torch.allclose(tokens(new, one.expand(ours)), tokens(kernel, one.expand(own)), atol=1e-4)
    for axis in range(3):
        if own[axis] > 1 and ours[axis] > 1:  # one voxel shows no ramp
            before, after = voxel_centres(own)[axis], voxel_centres(ours)[axis]
            assert torch.allclose(tokens(new, after), tokens(kernel, before), atol=1e-4)


def test_an_enlarged_patch_has_exactly_the_token_of_the_small_one():
    kernel, patch = kernel_of((4, 4, 4)), torch.randn(4, 4, 4, dtype=torch.float64)
    # Trilinear inside; beyond the outer middles ours goes on linearly, so only a part is compared.
    from ssl_pipeline.init_from.patch_embedding import _interpolation_matrix

    up = _interpolation_matrix(4, 8)
    inner = torch.nn.functional.interpolate(patch[None, None], size=(8, 8, 8), mode="trilinear")
    large = torch.einsum("zyx,az,by,cx->abc", patch, up, up, up)
    assert torch.allclose(large[1:-1, 1:-1, 1:-1], inner[0, 0, 1:-1, 1:-1, 1:-1])
    new = resize_patch_embedding(kernel, (8, 8, 8))
    assert torch.allclose(tokens(new, large), tokens(kernel, patch), atol=1e-4)


def test_a_2d_kernel_is_repeated_along_z_and_divided():
    kernel = kernel_of((1, 8, 8))
    assert torch.allclose(resize_patch_embedding(kernel, (4, 8, 8)), kernel.expand(5, 4, 8, 8) / 4)


def test_a_kernel_of_the_size_is_left_alone():
    kernel = kernel_of((8, 8, 8))
    assert resize_patch_embedding(kernel, (8, 8, 8)) is kernel
