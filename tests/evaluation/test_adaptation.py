"""Contract of every adaptation method; a new one is tested by being listed."""

from copy import deepcopy
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import (
    TITLES,
    AdaptationMethod,
    Attentive,
    Full,
    Lora,
    Prompts,
)
from ssl_pipeline.evaluation.cells import PIXELS, RESNET, Cell
from ssl_pipeline.evaluation.config import Evaluate, Finetune
from ssl_pipeline.evaluation.data.pooling import AttentionPool, MeanPool
from ssl_pipeline.evaluation.decoders.light import Light
from ssl_pipeline.evaluation.finetuning.crop_model import EncoderCropModel, predict_crops
from ssl_pipeline.evaluation.finetuning.optimizer import (
    TrainingSettings,
    count_trained_parameters,
    optimise,
    parameter_groups,
)
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.crop_cells import CropCells
from ssl_pipeline.evaluation.runner.finetune import run_finetune
from ssl_pipeline.evaluation.runner.finetune_cells import SavedNetwork
from ssl_pipeline.evaluation.runner.networks import build_crop_model, load_network
from ssl_pipeline.evaluation.tasks import CropClassification, Segmentation
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from tests.conftest import read_json

METHODS = get_args(get_args(AdaptationMethod)[0])
MERGED = {"lora", "dora", "scale_shift"}
TRANSFORMER, CONVOLUTIONS = ViT(preset="tiny", registers=2), ResEnc(preset="tiny")
BLOBS = CropClassification(title="Blobs", label="blobs", classes={3: "bright", 5: "dark"})
ALL = Evaluate(subjects=(0,))
VOXELS = Segmentation(title="Voxels", label="blobs", classes={3: "bright", 5: "dark"})


def is_supported(kind, model):
    return not (kind.NEEDS_TRANSFORMER and model is CONVOLUTIONS)


def supported(methods):
    """Every method on every backbone that it works on."""
    pairs = [(kind, model) for model in (TRANSFORMER, CONVOLUTIONS) for kind in methods]
    return pytest.mark.parametrize(
        ("kind", "model"),
        [pair for pair in pairs if is_supported(*pair)],
        ids=lambda value: value.__name__ if isinstance(value, type) else value.name,
    )


each = pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)


def crops(number=2, dtype=torch.float32):
    torch.manual_seed(3)
    return torch.randn(number, 1, 16, 16, 16).to(dtype), torch.ones(number, 3, dtype=dtype)


def adapt_encoder(method, model, seed=0):
    encoder = random_encoder(model, 0)
    torch.manual_seed(seed)
    method.apply(encoder)
    return encoder


def perturb(encoder):
    """Change what is trained."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return encoder


@supported(METHODS)
def test_an_adapted_encoder_begins_as_it_was_pretrained(kind, model):
    plain, encoder = random_encoder(model, 0), adapt_encoder(kind(), model)
    same = torch.allclose(encoder(*crops()), plain(*crops()), atol=1e-5)
    assert same == (kind is not Prompts)  # whose random tokens change the output


@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind.NEEDS_TRANSFORMER])
def test_a_method_for_transformers_says_so(kind):
    with pytest.raises(UserError, match=f"{kind.TITLE} works on the blocks of a transformer"):
        adapt_encoder(kind(), CONVOLUTIONS)


@supported(METHODS)
def test_what_is_frozen_stays_and_what_is_trained_moves(kind, model):
    method, encoder = kind(), random_encoder(model, 0)
    network = EncoderCropModel(encoder, 2, method.pool(encoder.dim))
    method.apply(encoder)
    free = {name for name, p in network.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    images, spacing = crops(4)
    targets, losses = torch.tensor([0, 1, 0, 1]), []

    def loss_of(step):
        logits = network(images[:, 0], torch.ones_like(images[:, 0]), spacing)
        losses.append(nn.functional.cross_entropy(logits, targets))
        return losses[-1]

    settings = training_settings(method, steps=12, learning_rate=1e-3, warmup=0)
    optimise(network, loss_of, settings)
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert moved == free
    assert losses[-1] < losses[0]


def test_light_methods_train_few_weights_and_the_full_one_all():
    own = {kind: count_trained_parameters(adapt_encoder(kind(), TRANSFORMER)) for kind in METHODS}
    whole = sum(p.numel() for p in random_encoder(TRANSFORMER, 0).parameters())
    assert own.pop(Full) == whole
    assert own.pop(Attentive) == 0
    assert all(0 < number < 0.3 * whole for number in own.values()), own


@supported([kind for kind in METHODS if kind().name in MERGED])
def test_a_merged_encoder_is_a_plain_one_that_computes_the_same(kind, model):
    encoder = perturb(adapt_encoder(kind(), model)).double()  # where rounding hides no difference
    images = crops(dtype=torch.float64)
    before, plain = encoder(*images), random_encoder(model, 0).double()
    assert not torch.allclose(before, plain(*images), atol=1e-2)
    kind().merge(encoder)
    assert torch.allclose(encoder(*images), before, atol=1e-9)
    plain.load_state_dict(encoder.state_dict())
    assert torch.allclose(plain(*images), before, atol=1e-9)


@each
def test_a_copy_of_an_adapted_encoder_is_its_own(kind):
    encoder = adapt_encoder(kind(), TRANSFORMER)
    before = encoder(*crops())
    copied = perturb(deepcopy(encoder))
    assert torch.equal(encoder(*crops()), before)
    assert torch.allclose(copied(*crops()), before, atol=1e-3) == (kind is Attentive)


@each
def test_adapting_is_a_function_of_the_generator(kind):
    first, second, other = (perturb(adapt_encoder(kind(), TRANSFORMER, seed)) for seed in (0, 0, 1))
    assert torch.equal(first(*crops()), second(*crops()))
    drawn = kind.__name__ in ("Lora", "Dora", "Adapters", "Prompts")
    assert torch.equal(first(*crops()), other(*crops())) != drawn


def training_settings(method, is_pretrained=False, **section):
    section = Finetune(**{"precision": "fp32", **section})
    return TrainingSettings(section, method, (16, 16, 16), 0, "cpu", is_pretrained)


def test_layers_decay_towards_the_crop():
    method, encoder = Full(layer_decay=0.5), random_encoder(TRANSFORMER, 0)
    network = EncoderCropModel(encoder, 2, MeanPool())
    method.apply(encoder)
    of = {
        id(p): group["scale"]
        for group in parameter_groups(network, training_settings(method))
        for p in group["params"]
    }
    scale = {name: of[id(p)] for name, p in network.named_parameters()}
    assert scale["head.1.weight"] == Finetune().head_lr_factor
    assert scale["encoder.norm.weight"] == 1
    assert scale["encoder.blocks.5.mlp.fc1.weight"] == 0.5
    assert scale["encoder.blocks.0.mlp.fc1.weight"] == 0.5**6
    assert scale["encoder.embed.weight"] == scale["encoder.registers"] == 0.5**7


def trained_twice(**section):
    """A network after two steps, and its weights before them."""
    method, encoder = Full(), random_encoder(TRANSFORMER, 0)
    network = EncoderCropModel(encoder, 2, MeanPool())
    before = deepcopy(network.state_dict())
    images, spacing = crops()
    settings = training_settings(method, is_pretrained=True, steps=2, warmup=0, **section)

    def loss_of(step):
        return network(images[:, 0], torch.ones_like(images[:, 0]), spacing).square().sum()

    optimise(network, loss_of, settings)
    return network, before


def test_a_pretrained_encoder_waits_for_the_head_and_then_learns():
    method, encoder, states = Full(), random_encoder(TRANSFORMER, 0), []
    network = EncoderCropModel(encoder, 2, MeanPool())
    images, spacing = crops()
    settings = training_settings(method, is_pretrained=True, steps=6, warmup=0, head_warmup=0.5)

    def loss_of(step):
        states.append(deepcopy(network.state_dict()))
        return network(images[:, 0], torch.ones_like(images[:, 0]), spacing).square().sum()

    optimise(network, loss_of, settings)
    first, *others = (*states, network.state_dict())
    learned = [{name for name in first if not torch.equal(first[name], o[name])} for o in others]
    of_encoder = {name for name in first if name.startswith("encoder.")}
    assert all("head.1.weight" in names for names in learned)
    assert not any(names & of_encoder for names in learned[:3])
    assert all(len(names & of_encoder) > 0.9 * len(of_encoder) for names in learned[3:])
    groups = parameter_groups(network, training_settings(Full(), steps=100, head_warmup=0.1))
    assert {group["first_step"] for group in groups} == {0}  # random weights have nothing to lose


def test_an_average_of_the_weights_lags_behind_the_last_ones():
    last, before = trained_twice()
    average, _ = trained_twice(ema_decay=0.9)
    start = before["head.1.weight"]
    moved = [(n.state_dict()["head.1.weight"] - start).norm() for n in (average, last)]
    assert 0 < moved[0] < moved[1]


def test_training_runs_in_bf16_with_weights_of_full_precision():
    network, before = trained_twice()
    reduced, _ = trained_twice(precision="bf16")
    for name, weight in reduced.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.allclose(weight, network.state_dict()[name], atol=0.01), name
    assert not torch.equal(reduced.state_dict()["head.1.weight"], before["head.1.weight"])


def test_weights_of_light_methods_do_not_decay():
    method, encoder = Lora(), random_encoder(TRANSFORMER, 0)
    network = EncoderCropModel(encoder, 2, MeanPool())
    method.apply(encoder)
    decayed = [
        group
        for group in parameter_groups(network, training_settings(method))
        if group["weight_decay"]
    ]
    assert [p.shape for group in decayed for p in group["params"]] == [(2, encoder.dim)]


def test_attention_begins_as_the_mean_and_looks_at_no_token_of_weight_zero():
    torch.manual_seed(0)
    tokens, weight = torch.randn(2, 5, 12), torch.tensor([[1.0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    pool = AttentionPool(12, 3)
    assert torch.allclose(pool(tokens, weight), MeanPool()(tokens, weight), atol=1e-6)
    nn.init.normal_(pool.queries)
    changed = tokens.clone()
    changed[0, 3:] += 100
    assert torch.equal(pool(tokens, weight)[0], pool(changed, weight)[0])
    with pytest.raises(UserError, match="shares 12 features among 5 queries"):
        AttentionPool(12, 5)


def test_each_query_weighs_its_own_share_of_the_features():
    pool = AttentionPool(4, 2)
    tokens = torch.tensor([[[1.0, 0, 5, 5], [0, 1, 7, 7]]])
    with torch.no_grad():
        pool.queries[0] = torch.tensor([100.0, -100, 0, 0])  # looks at the first token alone
    found = pool(tokens, torch.ones(1, 2))
    assert torch.allclose(found, torch.tensor([[1.0, 0, 6, 6]]), atol=1e-4)


def test_a_frozen_encoder_keeps_nothing_for_the_way_back():
    method, encoder = Attentive(), random_encoder(TRANSFORMER, 0)
    network = EncoderCropModel(encoder, 2, method.pool(encoder.dim))
    method.apply(encoder)
    images, spacing = crops()

    def flops(backward):
        with FlopCounterMode(display=False) as counter:
            loss = network(images[:, 0], torch.ones_like(images[:, 0]), spacing).sum()
            if backward:
                loss.backward()
        return counter.get_total_flops()

    assert flops(True) < 1.1 * flops(False)


def test_every_method_has_its_rows_for_classes(small, tmp_path):
    settings = Finetune(methods=tuple(kind() for kind in METHODS), steps=2, batch_size=4, seeds=3)
    results = run_finetune(BLOBS, settings, small.context(tmp_path, evaluate=ALL))
    rows = {(r.method, r.initialization) for r in results.rows}
    expected = {(m, i) for m in TITLES for i in ("pretrained", "random")}
    baselines = {PIXELS, RESNET}
    assert rows == expected | {("baseline", init) for init in baselines}
    compared = {(d.method, d.against) for d in results.differences}
    assert compared == {(m, other) for m in TITLES for other in {"random", *baselines}}


def test_methods_that_serve_no_voxels_are_left_out_and_reported(small, tmp_path):
    settings = Finetune(
        methods=(Lora(), Attentive()), steps=1, batch_size=8, overlap=0, decoder=Light(),
        keep_predictions="none",
    )  # fmt: skip
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    results = run_finetune(VOXELS, settings, context)
    assert {r.method for r in results.rows} == {"lora"}
    assert "Not available for segmentation: attentive probe." in " ".join(results.notes)


def test_another_method_leaves_the_cells_of_the_first_alone(small, tmp_path):
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    run_finetune(BLOBS, Finetune(steps=1, batch_size=2), context)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    run_finetune(BLOBS, Finetune(methods=(Lora(), Full()), steps=1, batch_size=2), context)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert len(list((tmp_path / "cells").iterdir())) == 2 * len(before)


def memory_of(kind):
    method, encoder = kind(), random_encoder(TRANSFORMER, 0)
    network = EncoderCropModel(encoder, 2, MeanPool())
    method.apply(encoder)
    images, spacing = crops()

    def loss_of(step):
        return network(images[:, 0], torch.ones_like(images[:, 0]), spacing).sum()

    return optimise(network, loss_of, training_settings(method, steps=2)), network


def test_memory_is_that_of_weights_gradients_moments_and_what_is_kept():
    (full, network), (frozen, _) = memory_of(Full), memory_of(Attentive)
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert 4 * weights < full < 6 * weights  # the crops are small
    assert weights < frozen < 1.1 * weights
    assert frozen < memory_of(Lora)[0] < full


@each
def test_a_network_that_was_kept_predicts_what_it_did(kind, small, tmp_path):
    method, settings = (
        kind(),
        Finetune(methods=(kind(),), steps=3, batch_size=4, keep_networks="all"),
    )
    context = small.context(tmp_path, evaluate=ALL, initializations={"pretrained": "of a test"})
    run_finetune(BLOBS, settings, context)
    runner, cell = TaskRunner(BLOBS, context), Cell(method.name, "pretrained", 0, 0)
    assert len(list((tmp_path / "networks").iterdir())) == 3  # the seeds of the largest budget
    network = load_network(
        build_crop_model(runner, cell, method), SavedNetwork(cell, method, settings, tmp_path)
    )
    cells = CropCells(runner, BLOBS)
    probability = predict_crops(network, cells.crop_batches(cells.test_crops, 8), "cpu")
    before = read_json(cell.path(tmp_path))["predictions"]
    assert np.allclose(probability, [row["probability"] for row in before], atol=1e-5)


def test_a_network_that_was_not_kept_is_asked_for(small, tmp_path):
    runner, method = TaskRunner(BLOBS, small.context(tmp_path)), Full()
    cell = Cell("full", "pretrained", 0, 0)
    with pytest.raises(UserError, match=r"is not there: set finetune.keep_networks to all"):
        load_network(
            build_crop_model(runner, cell, method), SavedNetwork(cell, method, Finetune(), tmp_path)
        )
