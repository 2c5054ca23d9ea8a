"""Prediction of targets: losses by the formulas, masked values, faults of tables, gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from ssl_pipeline.errors import UserError
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.objectives import Custom
from ssl_pipeline.objectives.term_inputs import TermMetadata
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.target_prediction import TargetPrediction
from ssl_pipeline.views.augmentation import augmented_views
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler
from tests.training.small_trainer import build_objective

AGE = {"kind": "number", "mean": 60, "std": 10}
SEX = {"kind": "class", "classes": ["F", "M"]}
EFFUSION = {"kind": "finding"}
REPORT = {"kind": "vector", "size": 4}
ALL = TargetPrediction(targets={"age": AGE, "sex": SEX, "effusion": EFFUSION, "report": REPORT})
SAYS = (
    {"age": "070Y", "sex": "M", "effusion": "1", "report": "[1, 0, 0, 0]"},
    {"age": "45", "sex": "F", "effusion": "absent", "report": "0 1 1 0"},
    {"sex": "other"},
)


@pytest.fixture
def entries(catalog):
    return [
        replace(entry, targets=dict(said))
        for entry, said in zip(catalog.entries, SAYS, strict=False)
    ]


def metadata(features, second=None):
    features = torch.as_tensor(features)
    who = torch.arange(len(features))
    return TermMetadata(who, features, features if second is None else second, who)


def outputs(n, seed=0, term=ALL):
    generator = torch.manual_seed(seed)
    width = sum(target.outputs for target in term.targets.values())
    return torch.randn(n, width, generator=generator).requires_grad_()


def test_values_become_numbers_and_what_is_missing_is_nan(entries):
    found = ALL.metadata_features(entries)
    assert found[0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert found[1].tolist() == [-1.5, 0, 0, 0, 1, 1, 0]
    assert np.isnan(found[2]).all()


def test_the_loss_is_the_mean_of_the_losses_of_the_targets(entries):
    features = ALL.metadata_features(entries)
    first, second = outputs(3), outputs(3, 1)
    known = torch.cat([first[:2], second[:2]])
    age, sex, effusion, report = known.split([1, 2, 1, 4], 1)
    z = torch.tensor([1, -1.5, 1, -1.5])
    apart = (age[:, 0] - z).abs()
    wanted = [
        torch.where(apart <= 1, apart**2 / 2, apart - 0.5).mean(),
        -sex.log_softmax(1)[range(4), [1, 0, 1, 0]].mean(),
        binary_cross_entropy_with_logits(effusion[:, 0], torch.tensor([1.0, 0, 1, 0])),
        (1 - cosine_similarity(report, torch.tensor(features[[0, 1, 0, 1], 3:]))).mean(),
    ]
    loss = ALL.loss(first, second, metadata(features))
    assert loss.item() == pytest.approx(sum(wanted).item() / 4, rel=1e-5)
    of_all = dict(zip(ALL.targets, wanted, strict=True))
    logged = ALL.snapshot_metrics(first.detach(), second.detach(), metadata(features))
    for name, value in of_all.items():
        assert logged[f"target_loss/{name}"] == pytest.approx(value.item(), rel=1e-5)


def test_a_weight_is_a_share(entries):
    heavy = TargetPrediction(targets={"age": AGE | {"weight": 3}, "effusion": EFFUSION})
    features = heavy.metadata_features(entries)
    first, second = outputs(3, 0, heavy), outputs(3, 1, heavy)
    known = metadata(features)
    each = heavy.snapshot_metrics(first.detach(), second.detach(), known)
    wanted = 0.75 * each["target_loss/age"] + 0.25 * each["target_loss/effusion"]
    assert heavy.loss(first, second, known).item() == pytest.approx(wanted, rel=1e-5)


def test_missing_values_change_nothing_and_give_no_nan():
    rng = np.random.default_rng(0)
    term = TargetPrediction(targets={"age": AGE, "effusion": EFFUSION})
    features = np.stack([rng.normal(size=40), rng.integers(0, 2, 40)], 1).astype(np.float32)
    holes = rng.random(features.shape) < 0.3
    features[holes] = np.nan
    first, second = outputs(40, 0, term), outputs(40, 1, term)
    loss = term.loss(first, second, metadata(features))
    gradient = torch.autograd.grad(loss, first)[0]
    assert loss.isfinite() and gradient.isfinite().all()
    assert (gradient[torch.tensor(holes)] == 0).all() and (
        gradient[torch.tensor(~holes)] != 0
    ).all()
    moved = first.detach() + 9 * torch.tensor(holes)
    assert term.loss(moved, second, metadata(features)).item() == loss.item()


def test_a_batch_without_any_value_has_no_loss_and_a_graph():
    first, second = outputs(3), outputs(3, 1)
    nothing = metadata(np.full((3, ALL.metadata_width), np.nan, np.float32))
    loss = ALL.loss(first, second, nothing)
    assert loss.item() == 0 and torch.autograd.grad(loss, first)[0].abs().max() == 0
    assert ALL.snapshot_metrics(first, second, nothing) == {}


def test_each_view_is_asked_of_its_own_scan():
    """The second view may be of another scan of the visit."""
    term = TargetPrediction(targets={"age": AGE})
    first, second = torch.tensor([[1.0]]), torch.tensor([[-2.0]])
    known = metadata(np.float32([[1]]), torch.tensor([[-2.0]]))
    assert term.loss(first, second, known).item() == 0


def test_scores_are_those_of_perfect_and_of_constant_predictions(entries):
    known = metadata(ALL.metadata_features(entries[:2]))
    perfect = torch.tensor([[1, -9, 9, 9, 1, 0, 0, 0], [-1.5, 9, -9, -9, 0, 1, 1, 0]])
    assert ALL.prediction_scores(perfect, perfect, known) == pytest.approx(
        {"age": 1, "sex": 1, "effusion": 1, "report": 1}
    )
    constant = torch.tensor([[-0.25, 9, -9, 9, 1, 0, 0, 0]]).expand(2, -1)
    found = ALL.prediction_scores(constant, constant, known)
    assert found == pytest.approx({"age": 0, "sex": 0.5, "effusion": 0.5, "report": 0.5})


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ({"sex": AGE}, "predicts sex, whose value of scan .* is no number: correct it"),
        ({"sex": EFFUSION}, "is none of 1, true, yes"),
        ({"report": {"kind": "vector", "size": 3}}, "has 4 numbers, and size is 3"),
        ({"sex": REPORT}, "is no list of numbers"),
        ({"weight_kg": AGE}, "predicts weight_kg, which no scan has"),
        ({"sex": {"kind": "class", "classes": ["w", "m"]}}, "no scan has as one of its classes"),
        (
            {"age": {"kind": "number", "mean": 0, "std": 1}},
            "with mean 0 and std 1, and the training scans have mean 57.5 and std 12.5: write",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_sentence(targets, sentence, entries):
    with pytest.raises(UserError, match=sentence) as error:
        TargetPrediction(targets=targets).check_metadata(entries)
    assert "other" not in str(error.value), "a value may be text"


@pytest.mark.parametrize(
    ("vector", "sentence"),
    [
        ("1 2 3", "has 3 numbers, and size is 4"),
        ("0 0 0 0", "has zeros alone, and so no direction"),
    ],
)
def test_vectors_of_two_lengths_and_without_direction_are_refused(vector, sentence, entries):
    entries[1].targets["report"] = vector
    with pytest.raises(UserError, match=f"predicts report, .* {sentence}"):
        TargetPrediction(targets={"report": REPORT}).check_metadata(entries)


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["F", "M", "F"], "classes is F, M, F: give each once"),
        ([1, "1.0"], "classes is 1, 1: give each once"),
        (["f", "F"], "give each once"),
        (["F", "M", "unknown"], "a word for a missing value, which is masked: leave it out"),
    ],
)
def test_a_class_is_named_once_and_is_no_missing_value(classes, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TargetPrediction(targets={"sex": {"kind": "class", "classes": classes}})


def test_a_term_needs_a_target():
    with pytest.raises(ValidationError, match="at least 1 item"):
        TargetPrediction(targets={})


@pytest.mark.parametrize("model", [ViT(patch_voxels=(4, 4, 4)), ResEnc()], ids=lambda m: m.name)
def test_its_gradient_reaches_the_encoder_beside_other_terms(model, entries, reader):
    objective = build_objective(Custom(terms=(Reconstruction(weight=0), ALL)), model)
    views = Views(crop_voxels=(32, 32, 32))
    sampler = Sampler(
        entries, reader, views, model.patch_voxels, batch_size=3, seed=0,
        metadata_features=ALL.metadata_features(entries),
    )  # fmt: skip
    batch, images = augmented_views(sampler.batch(0), views, model.patch_voxels)
    loss = objective.mean_losses(objective(batch, images))["target_prediction"]
    loss.backward()
    norms = [p.grad.norm().item() for p in objective.encoder.parameters() if p.grad is not None]
    assert loss.item() > 0 and np.isfinite(norms).all() and max(norms) > 0
