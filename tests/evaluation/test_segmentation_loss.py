"""Classes that are not annotated have no effect on the loss."""

import torch

from ssl_pipeline.evaluation.finetuning.segmentation_loss import (
    deep_supervision_loss,
    segmentation_loss,
)


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 3, 4, 5, generator=generator)
    truth = torch.randint(0, 4, (2, 3, 4, 5), generator=generator)
    return logits, truth


def test_voxels_outside_of_the_label_have_no_gradient():
    logits, truth = case()
    truth[:, 1] = 255
    logits.requires_grad_()
    segmentation_loss(logits, truth, torch.ones(2, 3, dtype=torch.bool), 255).backward()
    assert logits.grad is not None
    assert logits.grad[:, :, 1].abs().max() == 0
    assert logits.grad[:, :, 0].abs().max() > 0


def test_a_class_that_is_not_annotated_may_replace_background():
    logits, truth = case()
    truth[truth == 2] = 0
    annotated = torch.tensor([[True, False, True]] * 2)
    changed = logits.clone()
    # The sum of the probabilities of background and class 2 stays, their shares change.
    both = torch.logsumexp(logits[:, [0, 2]], dim=1)
    share = torch.rand(both.shape, generator=torch.Generator().manual_seed(1)).clamp(0.05, 0.95)
    changed[:, 0], changed[:, 2] = both + share.log(), both + (1 - share).log()
    before = segmentation_loss(logits, truth, annotated, 255)
    assert torch.allclose(before, segmentation_loss(changed, truth, annotated, 255), atol=1e-5)
    everything = torch.ones(2, 3, dtype=torch.bool)
    differs = segmentation_loss(logits, truth, everything, 255) - segmentation_loss(
        changed, truth, everything, 255
    )
    assert differs.abs() > 1e-3


def test_the_loss_falls_to_zero_with_certainty_and_is_finite_without_any_voxel():
    _, truth = case()
    everything = torch.ones(2, 3, dtype=torch.bool)
    certain = torch.nn.functional.one_hot(truth, 4).movedim(-1, 1) * 50.0
    assert segmentation_loss(certain, truth, everything, 255) < 1e-3
    assert segmentation_loss(-certain, truth, everything, 255) > 10
    nowhere = torch.full_like(truth, 255)
    assert torch.isfinite(segmentation_loss(certain, nowhere, everything, 255))
    assert torch.isfinite(segmentation_loss(certain, truth * 0, ~everything, 255))


def test_coarse_resolutions_are_compared_with_the_voxel_in_their_middle():
    fine = torch.zeros(1, 4, 6, 8, dtype=torch.long)
    fine[:, 1::2, 1::2] = 1  # what the middle of a voxel of 2 x 2 x 1 shows
    everything = torch.ones(1, 3, dtype=torch.bool)
    certain = torch.nn.functional.one_hot(fine, 4).movedim(-1, 1) * 50.0
    coarse = torch.zeros(1, 4, 2, 3, 8)
    coarse[:, 1] = 50.0
    assert deep_supervision_loss([certain, coarse], fine, everything, 255) < 1e-3


def test_a_resolution_counts_half_as_much_as_the_next_finer_one():
    logits, truth = case()
    everything, coarse = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 4, 3, 2, 5)
    fine = segmentation_loss(logits, truth, everything, 255)
    other = segmentation_loss(coarse, truth[:, :, 1::2], everything, 255)
    both = deep_supervision_loss([logits, coarse], truth, everything, 255)
    assert torch.isclose(both, (fine + 0.5 * other) / 1.5)
