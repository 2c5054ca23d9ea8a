"""The teacher of self-distillation is an average that no gradient reaches."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.diagnosis import diagnose
from ssl_pipeline.objectives import Custom, HybridDino
from ssl_pipeline.objectives.term_inputs import Crops
from ssl_pipeline.objectives.terms.dino import Dino
from ssl_pipeline.objectives.terms.term import diagnosis_rules
from ssl_pipeline.views.patches import pool_tokens
from tests.training.small_trainer import MODEL, flat_weights, small_trainer

DINO = Dino(prototypes=16)
OBJECTIVE = Custom(terms=(DINO,), teacher_momentum=0.5)


@pytest.fixture(scope="module")
def run(study, tmp_path_factory):
    """A run of two steps, with what it was before and after each."""
    trainer = small_trainer(tmp_path_factory.mktemp("teacher"), study.folder, OBJECTIVE, steps=4)
    states = [trainer.state()]
    for _ in range(2):
        states.append(trainer.train(1))
    return trainer, [state.objective for state in states]


def test_it_begins_as_the_encoder_and_follows_it_by_half(run):
    _, (start, first, second) = run
    names = {
        name: name.replace("teacher.encoder", "encoder").replace(
            "teacher.heads.dino.projection", "heads.dino"
        )
        for name in start
        if name.startswith("teacher.") and not name.endswith(("center", "temperature"))
    }
    assert {"encoder", "heads"} == {name.split(".")[0] for name in names.values()}
    for own, other in names.items():
        assert torch.equal(start[own], start[other])
        assert torch.allclose(first[own], (start[own] + first[other]) / 2, atol=1e-7)
        assert torch.allclose(second[own], (first[own] + second[other]) / 2, atol=1e-7)


def test_its_centre_follows_the_mean_output_of_the_whole_batch(run):
    trainer, (start, first, _) = run
    trainer.objective.load_state_dict(start)
    batch, images = trainer.make_views(trainer.sampler.batch(0))
    teacher = trainer.objective.teacher
    with torch.no_grad():
        tokens = teacher.encoder(images, batch.spacing_mm)
        pooled = pool_tokens(tokens, (batch.body_share >= 0.5).float())
        outputs = teacher.heads["dino"].projection(pooled)
    assert torch.allclose(first["teacher.heads.dino.center"], 0.1 * outputs.mean(0), atol=1e-6)


def test_a_view_learns_what_the_other_is_taken_for(run):
    trainer, _ = run
    batch, images = trainer.make_views(trainer.sampler.batch(1))
    crops = Crops(batch, MODEL.patch_voxels)
    targets = trainer.objective.teacher(crops, images)["dino"].probabilities
    # Where second views are replaced, the targets of first views alone change.
    blank = torch.cat([images[:4], torch.zeros_like(images[4:])])
    changed = trainer.objective.teacher(crops, blank)["dino"].probabilities
    assert torch.equal(changed[4:], targets[4:])
    assert not torch.isclose(changed[:4], targets[:4]).all(-1).any()


def test_local_crops_learn_what_the_other_view_is_taken_for(run):
    trainer, _ = run
    objective = trainer.objective
    batch, images = trainer.make_views(trainer.sampler.batch(1))
    local = torch.tensor([[[0, 1], [2, 3]]]).expand(len(images), 2, 2)
    crops = Crops(replace(batch, local=local), MODEL.patch_voxels)
    outputs = objective.encode_crops(crops, images, objective.passes)
    whole, parts = outputs.targets["dino"].probabilities.split([8, 16])
    assert torch.equal(parts, whole.repeat_interleave(2, dim=0))
    rows = DINO.student_rows(objective.heads["dino"], crops, outputs)
    # A local crop is seen as if there were nothing else in the view.
    images[:, :, :, :, 8:] = 9.0  # patches 0 and 1 of a row lie before
    other = objective.encode_crops(crops, images, objective.passes)
    changed = DINO.student_rows(objective.heads["dino"], crops, other)
    same = [torch.equal(a, b) for a, b in zip(rows[8:], changed[8:], strict=True)]
    assert same == [True, False] * 8


def test_only_the_encoder_gets_a_gradient(run):
    objective = run[0].objective
    assert not any(p.requires_grad or p.grad is not None for p in objective.teacher.parameters())
    assert all(p.grad is not None for p in objective.encoder.parameters())


def test_its_temperature_rises_and_stays():
    found = [DINO.teacher_temperature_at(progress) for progress in (0.0, 0.15, 0.3, 1.0)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_a_teacher_that_is_less_certain_is_refused():
    with pytest.raises(ValidationError, match=r"teacher_temperature is 0.2, not below student_te"):
        Dino(teacher_temperature=0.2)


@pytest.mark.parametrize(
    ("metric", "value", "limit", "words"),
    [
        ("dino_teacher_entropy", 0.99, {"max_teacher_entropy": 0.9}, "is certain of nothing"),
        ("dino_prototype_share", 0.01, {"min_prototype_share": 0.1}, "takes all for nearly the"),
    ],
)
def test_a_teacher_that_collapses_is_diagnosed_where_a_limit_is_set(metric, value, limit, words):
    rows = [{"step": step, "progress": 0.5, metric: value} for step in (1, 2, 3)]
    rules = diagnosis_rules([DINO])
    found = diagnose(rows, Monitoring(**limit), rules)
    assert found.name == "collapsed" and words in found.reason
    assert diagnose(rows, Monitoring(), rules).name == "healthy"


def test_a_resumed_run_has_the_same_teacher(study, tmp_path):
    whole, cut = (small_trainer(tmp_path / n, study.folder, HybridDino()) for n in "ab")
    whole.train()
    cut.train(2)
    again = small_trainer(tmp_path / "b", study.folder, HybridDino())
    assert again.step == 2
    again.train()
    ends = whole.state().objective, again.state().objective
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())
    began = flat_weights(random_encoder(MODEL, 0))
    assert not torch.equal(flat_weights(whole.objective.teacher.encoder), began)
