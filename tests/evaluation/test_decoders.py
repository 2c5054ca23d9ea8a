"""Decoders of voxels, on every backbone."""

from typing import get_args

import pytest
import torch

from ssl_pipeline.evaluation.config import Evaluate, Finetune
from ssl_pipeline.evaluation.decoders import DecoderConfig
from ssl_pipeline.evaluation.decoders.unetr import UnetrDecoder
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.tasks import Segmentation
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder

DECODERS = [kind() for kind in get_args(get_args(DecoderConfig)[0])]
MODELS = [
    ViT(preset="tiny"),
    ViT(preset="tiny", patch_voxels=(4, 8, 8), registers=2),
    ResEnc(),
    ResEnc(patch_voxels=(4, 8, 8)),
]


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: d.name)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{m.patch_voxels[0]}")
def test_every_decoder_draws_every_voxel_and_all_of_it_learns(model, decoder):
    encoder = random_encoder(model, 0)
    network = SegmentationModel(encoder, decoder.build(encoder), 2, with_input_skip=True)
    images = torch.randn(2, 16, 16, 24)
    logits = network(images, torch.ones(2, 3))
    assert logits.shape == (2, 3, 16, 16, 24)
    logits.square().mean().backward()
    own = {n: p for n, p in network.named_parameters() if not n.startswith("encoder.")}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.values())


def test_skips_join_at_their_own_resolution_of_a_convolutional_encoder():
    encoder = random_encoder(ResEnc(), 0)
    rise = UnetrDecoder().build(encoder)
    assert [encoder.feature_info[index].reduction for index in rise.skips] == [(4, 4, 4), (2, 2, 2)]


def test_skips_of_a_transformer_are_evenly_deep():
    assert UnetrDecoder().build(random_encoder(ViT(preset="S"), 0)).skips == [7, 3]


def test_the_last_intermediates_are_the_tokens():
    encoder = random_encoder(ViT(preset="tiny", registers=2), 0).eval()
    crops, spacing = torch.randn(2, 1, 16, 16, 24), torch.ones(2, 3)
    with torch.no_grad():
        tokens, given = encoder(crops, spacing), encoder.forward_intermediates(crops, spacing)
    assert len(given) == len(encoder.feature_info) == len(encoder.blocks)
    assert torch.allclose(given[-1].flatten(2).transpose(1, 2), tokens)
    assert not torch.allclose(given[0], given[-1])


def test_a_segmentation_learns_with_skips(planted, tmp_path):
    task = Segmentation(title="Blobs", label="blobs", classes={3: "bright", 5: "dark"})
    settings = Finetune(
        steps=60,
        batch_size=4,
        learning_rate=3e-3,
        overlap=0,
        decoder=UnetrDecoder(),
        keep_predictions="none",
    )
    context = planted.context(
        tmp_path, evaluate=Evaluate(subjects=(0,)), initializations={"pretrained": "x"}
    )
    results = run_finetune(task, settings, context)
    assert results.rows[0].mean > 0.3
