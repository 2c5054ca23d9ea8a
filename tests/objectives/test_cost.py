"""Sizes that are counted without torch are those of the modules that torch builds."""

from itertools import compress

import pytest

from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Contrastive, Custom, Dense, DinoIbot, Hybrid, Mae
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.cost import training_cost
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.retain import Retain
from ssl_pipeline.training import checkpoint
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.cost import checkpoint_bytes, read_ahead_bytes
from ssl_pipeline.views.config import LocalCrops, Views
from tests.training.small_trainer import THROUGH_UNET

OBJECTIVES = [
    Hybrid(),
    Mae(reconstruction=Reconstruction(decoder_width=96, decoder_depth=3)),
    Contrastive(contrast=Contrast(projection_dim=64)),
    Dense(),
    DinoIbot(),
    Custom(terms=THROUGH_UNET),
    Custom(terms=(Reconstruction(), Retain())),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
@pytest.mark.parametrize(
    "model",
    [
        ViT(patch_voxels=(4, 8, 8)),
        ViT(layer_scale=0.1, qk_norm=True, registers=3),
        ResEnc(patch_voxels=(4, 8, 8)),
    ],
    ids=str,
)
def test_parameters_are_counted_exactly(objective, model):
    encoder = model.build()
    built = objective.build(encoder)
    assert model.parameter_count == sum(p.numel() for p in encoder.parameters())
    cost = training_cost(objective, model, Views())
    trained = [p.requires_grad for p in built.parameters()]
    sizes = [p.numel() for p in built.parameters()]
    assert cost.parameter_count == sum(compress(sizes, trained))
    assert cost.parameter_count + cost.teacher_parameter_count == sum(sizes)


def test_a_checkpoint_has_the_estimated_bytes():
    import torch

    from ssl_pipeline.training.compute import Compute

    model = ViT()
    built = Hybrid().build(model.build())
    optimizer = torch.optim.AdamW(built.parameters())
    sum(p.sum() for p in built.parameters()).backward()
    optimizer.step()
    state = checkpoint.TrainerState(
        step=1,
        objective=built.state_dict(),
        optimizer=optimizer.state_dict(),
        ema=[],
        scaler={},
        previous_embeddings=None,
        compute=Compute("cpu", "fp32", fused_attention=True, threads=1),
        config={},
    )
    estimate = checkpoint_bytes(training_cost(Hybrid(), model, Views()), Training())
    assert len(checkpoint.pack_state(state)) == pytest.approx(estimate, rel=0.05)


def test_local_crops_cost_a_pass_over_their_patches_each():
    views = Views(local_crops=LocalCrops(number=3))
    more = training_cost(DinoIbot(), ViT(), views).sample_flops
    box = ViT().forward_flops(27, views.crop_voxels)  # 3 of 4 patches along each axis
    assert more == training_cost(DinoIbot(), ViT(), Views()).sample_flops + 2 * 3 * 3 * box


def test_partners_are_read_ahead_beside_their_samples():
    alone, paired = (
        read_ahead_bytes(8.0, Views(partner=partner), Training(), Monitoring())
        for partner in ("scan", "visit")
    )
    assert paired == 2 * alone > 0
