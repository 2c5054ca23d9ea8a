"""Monitoring of a real run: it changes nothing, measures what it says, and can end a run."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ssl_pipeline import objectives
from ssl_pipeline.errors import UserError
from ssl_pipeline.models.encoder import CropFeatures
from ssl_pipeline.models.position_encoding import position_encoding
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Contrastive, Hybrid, Mae
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.losses import subject_contrast_loss
from ssl_pipeline.objectives.term_inputs import concatenate_metadata
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.subject_contrast import SubjectContrast
from ssl_pipeline.training import snapshots
from ssl_pipeline.training.loop import StoppedError
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.training.metrics_registry import METRICS
from ssl_pipeline.views.patches import gather_tokens, patch_centres_mm
from tests.conftest import crash_at_step
from tests.training.small_trainer import CONTRASTIVE, HYBRID, trained_weights

LOOP = {
    "step",
    "progress",
    "ramp_factor",
    "loss",
    "gradient_norm",
    "learning_rate",
    "samples_per_s",
    "data_wait",
}
RATES = {"samples_per_s", "data_wait", "mfu"}
OF_CONTRAST = {
    "alignment",
    "uniformity",
    "dimension_std",
    "local_contrast_real",
    "local_contrast_swapped",
    "local_contrast_chance",
}
OF_CONTRAST |= {"histogram_retrieval", "same_subject_loss", "position_shortcut"}


@pytest.fixture
def start(start):
    return partial(start, checkpoint_every=3, log_every=3)


def test_a_snapshot_leaves_nothing_behind(start, tmp_path):
    run = start(tmp_path, monitoring=Monitoring(snapshot_samples=6))
    run.train(1)
    monitor, objective = run.build_monitor(), run.objective.train()
    before = [(p, p.clone(), p.grad) for p in objective.parameters()]
    modes = [(m, m.training, getattr(m, "fused_attn", None)) for m in objective.modules()]
    drawn = torch.random.get_rng_state()
    monitor.take_snapshot(0.5, 10.0)
    monitor.render_images()
    assert all(torch.equal(p, value) and p.grad is grad for p, value, grad in before)
    assert any(grad is not None for *_, grad in before)
    assert [(m, m.training, getattr(m, "fused_attn", None)) for m, *_ in modes] == modes
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_a_sound_objective_holds_no_place_against_its_own_subject(start, tmp_path):
    monitor = start(tmp_path, monitoring=Monitoring(snapshot_samples=6)).build_monitor()
    assert monitor.take_snapshot(0.5, 10.0)["same_subject_loss"] == 0


def test_an_objective_without_the_subjects_mask_does(start, tmp_path, monkeypatch):
    def everybody(term, first, second, metadata):
        samples = torch.arange(len(first))
        return subject_contrast_loss(first, second, samples, metadata.features, term.temperature)

    monkeypatch.setattr(SubjectContrast, "loss", everybody)
    monitor = start(tmp_path, monitoring=Monitoring(snapshot_samples=6)).build_monitor()
    assert monitor.take_snapshot(0.5, 10.0)["same_subject_loss"] > 0.5


def test_subjects_that_are_lost_between_micro_batches_are_found_out(start, tmp_path, monkeypatch):
    def renumbered(parts):
        parts = [replace(part, subject=part.subject + n) for n, part in enumerate(parts)]
        return concatenate_metadata(parts)

    monitor = start(tmp_path, monitoring=Monitoring(snapshot_samples=6)).build_monitor()
    assert len(monitor.batches) > 1
    monkeypatch.setattr(objectives.backward, "concatenate_metadata", renumbered)
    assert monitor.take_snapshot(0.5, 10.0)["same_subject_loss"] > 0.5


@pytest.mark.parametrize(("share", "found_out"), [(0.0, False), (1.0, True)], ids=["crop", "scan"])
def test_an_encoder_that_knows_where_crops_lie_is_found_out(start, tmp_path, share, found_out):
    """Tokens are nothing but their places, in their crop or in the frame of their pair."""
    monitor = start(tmp_path, monitoring=Monitoring(snapshot_samples=6)).build_monitor()
    objective = monitor.objective
    objective.heads["local_contrast"] = torch.nn.Identity()

    def encode(batch, images):
        places = patch_centres_mm(
            tuple(images.shape[2:]), objective.encoder.patch, batch.spacing_mm
        )
        places = places + share * batch.start_mm[:, None]
        tokens = position_encoding(gather_tokens(places, batch.visible), objective.encoder.dim)
        return CropFeatures(tokens.requires_grad_(), [])

    objective.encode_visible = encode
    placed = monitor.take_snapshot(0.5, 10.0)["position_shortcut"]
    assert placed > 0.2 if found_out else placed < 0, placed


@pytest.mark.parametrize(("background", "low", "high"), [(0.0, 0.0, 0.0), (1.0, 0.3, 0.7)])
def test_rebuilding_is_steered_from_outside_the_body_as_much_as_that_weighs(
    start, tmp_path, background, low, high
):
    section = Hybrid(reconstruction=Reconstruction(background_weight=background))
    monitor = start(tmp_path, section, monitoring=Monitoring(snapshot_samples=6)).build_monitor()
    make_views = monitor.make_views

    def every_second_token_is_body(samples):
        batch, images = make_views(samples)
        body = (torch.arange(batch.body_share.shape[1]) % 2).float().expand_as(batch.body_share)
        return replace(batch, body_share=body), images

    monitor.make_views = every_second_token_is_body
    assert low <= monitor.take_snapshot(0.5, 10.0)["gradient_outside_body"] <= high


def test_snapshots_change_no_weight(start, tmp_path):
    rarely = trained_weights(
        start(tmp_path / "rarely", monitoring=Monitoring(snapshot_every=100, snapshot_samples=4))
    )
    often = trained_weights(
        start(tmp_path / "often", monitoring=Monitoring(snapshot_every=1, snapshot_samples=6))
    )
    assert torch.equal(rarely, often)


def test_a_resumed_run_has_the_metrics_of_an_undisturbed_one(start, tmp_path):
    monitoring = Monitoring(
        snapshot_every=2, snapshot_samples=6
    )  # its snapshots lie between checkpoints
    start(tmp_path / "whole", monitoring=monitoring).train()
    crash_at_step(start(tmp_path / "cut", monitoring=monitoring), 5)
    again = start(tmp_path / "cut", monitoring=monitoring)
    assert again.step == 3
    again.train()
    whole, cut = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    assert "embedding_drift" in whole[2] and [row["step"] for row in cut] == [2, 3, 4, 6]
    for mine, theirs in zip(whole, cut, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[name] == theirs[name] for name in mine.keys() - RATES)


def test_a_snapshot_set_of_another_size_begins_drift_anew(start, tmp_path):
    start(tmp_path, monitoring=Monitoring(snapshot_every=3, snapshot_samples=6)).train()
    start(tmp_path, monitoring=Monitoring(snapshot_every=3, snapshot_samples=8), steps=12).train()
    assert ["embedding_drift" in row for row in read_metrics(tmp_path / "metrics.jsonl")] == [
        0,
        1,
        0,
        1,
    ]


def test_a_term_between_subjects_that_weighs_nothing_has_no_metrics(start, tmp_path):
    places = Contrastive(contrast=Contrast(subject_weight=0))
    start(tmp_path, places, monitoring=Monitoring(snapshot_every=3, snapshot_samples=8)).train()
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert not last.keys() & {
        "subject_contrast",
        "subject_contrast_snapshot",
        "subject_contrast_chance",
        "same_subject_loss",
    }
    assert last.keys() >= {"local_contrast", "position_shortcut", "dimension_std", "uniformity"}


@pytest.mark.parametrize("objective", [Mae(), CONTRASTIVE, HYBRID], ids=lambda o: o.name)
def test_a_snapshot_has_the_metrics_that_make_sense_for_its_objective(start, tmp_path, objective):
    start(tmp_path, objective, monitoring=Monitoring(snapshot_every=3, snapshot_samples=8)).train()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [3, 6]
    last = rows[-1]
    assert last.keys() - {"learning_rate"} <= METRICS.keys()
    assert all(math.isfinite(value) for value in last.values())
    always = {
        "rankme",
        "rankme_share",
        "embedding_drift",
        "retrieval_accuracy",
        "region_accuracy",
        "mfu",
    }
    assert always <= last.keys() and last.keys() >= LOOP
    assert (last.keys() >= {"reconstruction_skill", "gradient_outside_body"}) == (
        objective.name != "contrastive"
    )
    assert (last.keys() >= OF_CONTRAST) == (objective.name != "mae")
    assert ("gradient_ratio" in last) == (objective.name == "hybrid")
    assert 0 < last["mfu"] < 2 and 0 < last["rankme_share"] <= 1.2 and last["progress"] == 1


def test_the_snapshot_set_holds_two_samples_of_each_subject_and_stays(start, tmp_path):
    run = start(tmp_path, monitoring=Monitoring(snapshot_every=3, snapshot_samples=8))
    first, again = run.sampler.monitoring_batches(8, 3), run.sampler.monitoring_batches(8, 8)
    subjects = torch.cat([part.meta.subject for part in first]).tolist()
    assert len(set(subjects)) == 4 and subjects[:4] == subjects[4:]
    assert torch.equal(torch.cat([part.voxels for part in first]), again[0].voxels)
    assert not torch.equal(again[0].voxels[:4], again[0].voxels[4:])


@pytest.mark.parametrize("objective", [CONTRASTIVE, HYBRID], ids=lambda o: o.name)
def test_a_run_leaves_images_of_its_quarters(start, tmp_path, objective):
    monitoring = Monitoring(snapshot_every=1, snapshot_samples=6)
    start(tmp_path, objective, monitoring=monitoring, steps=8, checkpoint_every=8).train()
    found = snapshots.read_images(tmp_path)
    assert [step for step, _ in found] == [2, 4, 6, 8]
    last = found[-1][1]
    assert last["input"].shape == last["attention"].shape == (4, 16, 16)
    assert np.array_equal(last["input"], found[0][1]["input"])  # the same crops every time
    assert last["attention"].mean() > 0 and np.isnan(last["masked"]).mean() > 0.5
    assert ("reconstruction" in last) == (objective.name == "hybrid")
    if "reconstruction" in last:
        seen = ~np.isnan(last["masked"])
        assert np.array_equal(last["reconstruction"][seen], last["input"][seen])
        assert not np.array_equal(last["reconstruction"], found[0][1]["reconstruction"])


def test_an_image_that_is_damaged_is_one_sentence(tmp_path):
    snapshots.save_images(tmp_path, 5, {"input": np.zeros((1, 4, 4), np.float32)})
    (path,) = (tmp_path / snapshots.FOLDER).glob("*.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"step-00000005.npz is damaged, or of another format"):
        snapshots.read_images(tmp_path)


def test_a_rare_snapshot_still_shows_the_end():
    assert [step for step in (100, 200, 250) if snapshots.is_due(step, 100, 250)] == [100, 200, 250]
    assert [step for step in range(1, 101) if snapshots.is_due(step, 1, 100)] == [25, 50, 75, 100]


def test_a_run_ends_early_on_the_diagnoses_that_the_study_names(start, tmp_path):
    """A frozen encoder: with a learning rate of next to nothing embeddings do not move."""
    settings = {"steps": 16, "learning_rate": 1e-30, "min_learning_rate": 0.0, "log_every": 1}
    monitoring = Monitoring(
        snapshot_every=2, snapshot_samples=4, collapse_after=0, stop_on=("collapsed",)
    )
    run = start(tmp_path, Mae(), monitoring=monitoring, **settings)
    with pytest.raises(StoppedError, match="as collapsed: The embeddings have not changed"):
        run.train()
    assert 6 <= run.step < 16
    assert (
        start(tmp_path, Mae(), monitoring=monitoring, **settings).step == run.step
    )  # nothing is lost
    heedless = monitoring.model_copy(update={"stop_on": ()})
    again = start(tmp_path, Mae(), monitoring=heedless, **settings)
    again.train()
    assert again.step == 16
