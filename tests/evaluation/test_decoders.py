"""Decoders of voxels, on every backbone."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation.full import Full
from ssl_pipeline.evaluation.cells import RANDOM, Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.decoders import DecoderConfig
from ssl_pipeline.evaluation.decoders.unet import UNet
from ssl_pipeline.evaluation.finetuning.build import compose_segmentation_model
from ssl_pipeline.evaluation.finetuning.optimizer import (
    TrainingSettings,
    fixed_seed,
    parameter_groups,
)
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.finetuning.segmentation_training import (
    build_labelled_volume,
    predict_volume,
    train_segmentation,
)
from ssl_pipeline.evaluation.runner.context import TaskRunner, no_decoder
from ssl_pipeline.evaluation.runner.networks import build_segmentation_model, training_settings
from ssl_pipeline.evaluation.runner.segmentation_cells import SegmentationCells
from ssl_pipeline.evaluation.tasks import Segmentation
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.models.unet_decoder import UNetDecoder

DECODERS = [kind() for kind in get_args(get_args(DecoderConfig)[0])]
MODELS = [
    ViT(preset="tiny"),
    ViT(preset="tiny", patch_voxels=(4, 8, 8), registers=2),
    ResEnc(),
    ResEnc(patch_voxels=(4, 8, 8)),
]


def segmentation_model(model, decoder, n_classes=2):
    encoder = random_encoder(model, 0)
    return SegmentationModel(encoder, decoder.build(encoder), n_classes)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: d.name)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.name}-{m.patch_voxels[0]}")
def test_every_decoder_draws_every_voxel_and_all_of_it_learns(model, decoder):
    network = segmentation_model(model, decoder)
    images = torch.randn(2, 16, 16, 24)
    logits = network.forward_resolutions(images, torch.ones(2, 3))
    assert logits[0].shape == (2, 3, 16, 16, 24)
    assert torch.equal(logits[0], network(images, torch.ones(2, 3)))
    sum(each.square().mean() for each in logits).backward()
    own = {n: p for n, p in network.named_parameters() if not n.startswith("encoder.")}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.values())


@pytest.mark.parametrize("model", [ViT(preset="tiny"), ResEnc()], ids=lambda m: m.name)
def test_convolutions_have_channels_last_and_compute_the_same(model):
    network = compose_segmentation_model(random_encoder(model, 0), 2, Full(), Finetune()).eval()
    kernels = [p for p in network.parameters() if p.ndim == 5 and p.shape[1] > 1]
    assert kernels
    assert all(k.is_contiguous(memory_format=torch.channels_last_3d) for k in kernels)
    torch.manual_seed(0)
    images = torch.randn(1, 16, 16, 24)
    with torch.no_grad():
        found = network(images, torch.ones(1, 3))
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
        assert torch.allclose(network(images, torch.ones(1, 3)), found, atol=1e-4)


def sizes(maps):
    return [tuple(each.shape[2:]) for each in maps]


@pytest.mark.parametrize(("patch", "first"), [((8, 8, 8), (8, 8, 12)), ((4, 8, 8), (16, 8, 12))])
@pytest.mark.parametrize("kind", [ViT, ResEnc])
def test_every_resolution_but_the_tokens_is_supervised(kind, patch, first):
    network = segmentation_model(kind(patch_voxels=patch), UNet())
    with torch.no_grad():
        logits = network.forward_resolutions(torch.randn(1, 16, 16, 24), torch.ones(1, 3))
    assert sizes(logits)[:2] == [(16, 16, 24), first]
    assert len(logits) == 3


def test_a_patch_that_is_no_power_of_two_is_reached_in_unequal_steps():
    network = segmentation_model(ViT(patch_voxels=(6, 6, 6)), UNet())
    with torch.no_grad():
        logits = network.forward_resolutions(torch.randn(1, 12, 12, 18), torch.ones(1, 3))
    assert sizes(logits) == [(12, 12, 18), (4, 4, 6)]


def test_tokens_of_a_transformer_reach_the_voxels_of_a_u_net():
    network = segmentation_model(ViT(), UNet())
    images = torch.randn(1, 16, 16, 24)
    with torch.no_grad():
        before = network(images, torch.ones(1, 3))
        network.encoder.norm.weight.zero_()
        assert not torch.allclose(network(images, torch.ones(1, 3)), before, atol=1e-3)


def test_the_last_intermediates_are_the_tokens():
    encoder = random_encoder(ViT(preset="tiny", registers=2), 0).eval()
    crops, spacing = torch.randn(2, 1, 16, 16, 24), torch.ones(2, 3)
    with torch.no_grad():
        tokens, given = encoder(crops, spacing), encoder.forward_intermediates(crops, spacing)
    assert len(given) == len(encoder.feature_info) == len(encoder.blocks)
    assert torch.allclose(given[-1].flatten(2).transpose(1, 2), tokens)
    assert not torch.allclose(given[0], given[-1])


@pytest.mark.parametrize("model", [ViT(preset="tiny"), ResEnc()], ids=lambda m: m.name)
def test_a_decoder_of_pretraining_moves_over_and_learns_at_the_rate_of_the_encoder(
    model, planted, tmp_path
):
    task = Segmentation(title="Blobs", label="blobs", classes={3: "bright", 5: "dark"})
    trained = UNetDecoder(random_encoder(model, 5)).state_dict()
    context = planted.context(
        tmp_path,
        encoder_factory=lambda name, seed: random_encoder(model, seed),
        decoder_weights=lambda name: trained,
    )
    runner = TaskRunner(task, context)
    section = Finetune(steps=10, batch_size=2, head_warmup=0.5, decoder=UNet(start="pretrained"))
    scales, first_steps = {}, {}
    for start in ("pretrained", RANDOM):
        cell = Cell("full", start, 0, 0)
        network = build_segmentation_model(runner, cell, Full(), section)
        moved = [torch.equal(trained[n], t) for n, t in network.decoder.state_dict().items()]
        assert all(moved) == (start == "pretrained")
        settings = training_settings(runner, cell, section, Full())
        of = {id(p): g for g in parameter_groups(network, settings) for p in g["params"]}
        scales[start] = {of[id(p)]["scale"] for p in network.decoder.parameters()}
        first_steps[start] = {of[id(p)]["first_step"] for p in network.decoder.parameters()}
        heads = [of[id(p)] for p in network.seg_layers.parameters()]
        assert {g["scale"] for g in heads} == {section.head_lr_factor}
        assert {g["first_step"] for g in heads} == {0}
    assert scales == {"pretrained": {1.0}, RANDOM: {section.head_lr_factor}}
    assert first_steps == {"pretrained": {5}, RANDOM: {0}}, "what moved over waits for the heads"
    runner = TaskRunner(task, replace(context, decoder_weights=no_decoder))
    with pytest.raises(UserError, match="'pretrained' was pretrained without a U-Net's decoder"):
        build_segmentation_model(runner, Cell("full", "pretrained", 0, 0), Full(), section)


def test_a_convolutional_encoder_learns_to_segment_with_skips(planted, tmp_path):
    task = Segmentation(title="Blobs", label="blobs", classes={3: "bright", 5: "dark"})
    cells = SegmentationCells(TaskRunner(task, planted.context(tmp_path)), task)
    train = [
        e for e in planted.catalog.entries if e.split == "train" and e.targets["corner"] == "0"
    ]
    scans = [build_labelled_volume(e, cells._class_indices(e), (True, True), 0) for e in train]
    section = Finetune(steps=50, batch_size=2, overlap=0)
    settings = TrainingSettings(section, Full(), (16, 16, 16), 0, "cpu")
    with fixed_seed(0, "cpu"):
        network = segmentation_model(ResEnc(), UNet())
    train_segmentation(network, planted.reader, scans, settings)
    scored = [e for e in planted.catalog.entries if e.split == "test"][:6]
    maps = [predict_volume(network, planted.reader, e, (16, 16, 16), section) for e in scored]
    dice = [cells.score_scan(e, found)["dice"] for e, found in zip(scored, maps, strict=True)]
    assert np.mean(dice, axis=0).min() > 0.4
