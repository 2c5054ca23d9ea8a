"""The convolutional backbone: its stages are nnU-Net's, and a crop that it cannot take is named."""

import pytest
import torch
from pydantic import ValidationError

from ssl_pipeline.models import ResEnc
from ssl_pipeline.models.encoder import random_encoder


def test_strides_multiply_to_the_patch_and_thick_slices_wait():
    stages = ResEnc(patch_voxels=(4, 8, 8), preset="L").stages
    assert [s.stride for s in stages] == [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert [s.kernel for s in stages] == [(1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert [(s.out_channels, s.blocks) for s in stages] == [(32, 1), (64, 3), (128, 4), (256, 6)]
    assert stages[-1].reduction == (4, 8, 8)


def test_widths_end_at_the_widest_and_blocks_at_the_last_number():
    stages = ResEnc(patch_voxels=(32, 32, 32), preset="L").stages
    assert [s.out_channels for s in stages] == [32, 64, 128, 256, 320, 320]
    assert [s.blocks for s in stages] == [1, 3, 4, 6, 6, 6]


@pytest.mark.parametrize("patch", [(8, 8, 8), (4, 8, 8), (1, 8, 8), (2, 2, 2)])
def test_what_stages_give_has_every_resolution(patch):
    config = ResEnc(patch_voxels=patch)
    encoder = random_encoder(config, 0)
    crops = torch.randn(2, 1, 16, 16, 24)
    with torch.no_grad():
        given = encoder.forward_intermediates(crops, torch.ones(2, 3))
        tokens = encoder(crops, torch.ones(2, 3))
    for stage, features in zip(config.stages, given, strict=True):
        size = [n // s for n, s in zip((16, 16, 24), stage.reduction, strict=True)]
        assert features.shape == (2, stage.out_channels, *size)
    last = encoder.norm(encoder.project(given[-1][0, :, -1, 0, 1]))
    number = torch.arange(tokens.shape[1]).reshape(given[-1].shape[2:])[-1, 0, 1]
    assert torch.allclose(tokens[0, number], last, atol=1e-5)


@pytest.mark.parametrize("patch", [(6, 8, 8), (0, 8, 8), (1, 1, 1)])
def test_a_patch_that_halving_does_not_reach_is_refused(patch):
    with pytest.raises(ValidationError, match="give powers of two"):
        ResEnc(patch_voxels=patch)


def test_what_is_seen_is_normed_by_itself():
    """A bright hidden half must not shift the statistics of the seen one: it is as if cut out."""
    encoder = random_encoder(ResEnc(patch_voxels=(2, 2, 2)), 0)
    crops = torch.randn(1, 1, 4, 4, 4)
    wide = torch.cat([crops, torch.full((1, 1, 4, 4, 4), 9.0)], dim=2)
    with torch.no_grad():
        alone = encoder(crops, torch.ones(1, 3))
        beside = encoder.forward_sparse(wide, torch.ones(1, 3), torch.arange(8)[None])
    assert torch.allclose(alone, beside, atol=1e-5)
