"""The flight recorder on a real run: it changes nothing, says what it means, and can end a run."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ssl_pipeline.models.position_encoding import position_encoding
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.monitoring.metrics_registry import METRICS
from ssl_pipeline.objectives import Contrastive, Hybrid, Mae, backward
from ssl_pipeline.objectives.config import Contrast, Reconstruction
from ssl_pipeline.objectives.losses import subject_contrast_loss
from ssl_pipeline.training import snapshots
from ssl_pipeline.training.loop import StoppedError
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.views.patches import gather_tokens, patch_centres_mm
from tests.conftest import crash_at_step
from tests.training.small_trainer import CONTRASTIVE, HYBRID, flat_weights

LOOP = {"step", "share", "ramp", "loss", "gradient_norm", "learning_rate", "pairs_per_s", "waiting"}
RATES = {"pairs_per_s", "waiting", "mfu"}
OF_CONTRAST = {"alignment", "uniformity", "spread", "local_real", "local_swapped", "local_chance"}
OF_CONTRAST |= {"matched_by_histogram", "own_negatives", "placed"}


@pytest.fixture
def start(start):
    return partial(start, checkpoint_steps=3, log_steps=3)


def test_a_record_leaves_nothing_behind(start, tmp_path):
    run = start(tmp_path, flight=Monitoring(snapshot_samples=6))
    run._optimise([run.sampler.batch(0)])
    recorder, objective = run._recorder(), run.objective.train()
    before = [(p, p.clone(), p.grad) for p in objective.parameters()]
    modes = [(m, m.training, getattr(m, "fused_attn", None)) for m in objective.modules()]
    drawn = torch.random.get_rng_state()
    recorder.record(0.5, 10.0)
    recorder.moment()
    assert all(torch.equal(p, value) and p.grad is grad for p, value, grad in before)
    assert any(grad is not None for *_, grad in before)
    assert [(m, m.training, getattr(m, "fused_attn", None)) for m, *_ in modes] == modes
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_a_sound_objective_holds_no_place_against_its_own_subject(start, tmp_path):
    recorder = start(tmp_path, flight=Monitoring(snapshot_samples=6))._recorder()
    assert recorder.record(0.5, 10.0)["own_negatives"] == 0


def test_an_objective_without_the_subjects_mask_does(start, tmp_path, monkeypatch):
    def everybody(first, second, subject, traits, temperature):
        return subject_contrast_loss(first, second, torch.arange(len(subject)), traits, temperature)

    monkeypatch.setattr(backward, "subject_contrast_loss", everybody)
    recorder = start(tmp_path, flight=Monitoring(snapshot_samples=6))._recorder()
    assert recorder.record(0.5, 10.0)["own_negatives"] > 0.5


@pytest.mark.parametrize(("share", "found_out"), [(0.0, False), (1.0, True)], ids=["crop", "scan"])
def test_an_encoder_that_is_told_where_crops_lie_is_found_out(start, tmp_path, share, found_out):
    """Tokens are nothing but their places, in their crop or in the frame of their pair."""
    recorder = start(tmp_path, flight=Monitoring(snapshot_samples=6))._recorder()
    objective = recorder.objective
    objective.places.head = torch.nn.Identity()

    def tokens(batch, images):
        places = patch_centres_mm(
            tuple(images.shape[2:]), objective.encoder.patch, batch.spacing_mm
        )
        places = places + share * batch.start_mm[:, None]
        return position_encoding(
            gather_tokens(places, batch.visible), objective.encoder.dim
        ).requires_grad_()

    objective.tokens = tokens
    placed = recorder.record(0.5, 10.0)["placed"]
    assert placed > 0.2 if found_out else placed < 0, placed


@pytest.mark.parametrize(("background", "low", "high"), [(0.0, 0.0, 0.0), (1.0, 0.3, 0.7)])
def test_rebuilding_is_steered_from_outside_the_body_as_much_as_that_weighs(
    start, tmp_path, background, low, high
):
    section = Hybrid(reconstruction=Reconstruction(background_weight=background))
    recorder = start(tmp_path, section, flight=Monitoring(snapshot_samples=6))._recorder()
    see = recorder.see

    def every_second_token_is_body(blocks):
        batch, images = see(blocks)
        body = (torch.arange(batch.body.shape[1]) % 2).float().expand_as(batch.body)
        return replace(batch, body=body), images

    recorder.see = every_second_token_is_body
    assert low <= recorder.record(0.5, 10.0)["rebuilt_outside"] <= high


def test_recording_changes_no_weight(start, tmp_path):
    rarely = flat_weights(
        start(
            tmp_path / "rarely", flight=Monitoring(snapshot_every=100, snapshot_samples=4)
        ).train()
    )
    often = flat_weights(
        start(tmp_path / "often", flight=Monitoring(snapshot_every=1, snapshot_samples=12)).train()
    )
    assert torch.equal(rarely, often)


def test_a_resumed_run_has_the_signs_of_an_undisturbed_one(start, tmp_path):
    flight = Monitoring(snapshot_every=2, snapshot_samples=6)  # its records lie between checkpoints
    start(tmp_path / "whole", flight=flight).train()
    crash_at_step(start(tmp_path / "cut", flight=flight), 5)
    again = start(tmp_path / "cut", flight=flight)
    assert again.step == 3
    again.train()
    whole, cut = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "cut"))
    assert "drift" in whole[2] and [row["step"] for row in cut] == [2, 3, 4, 6]
    for mine, theirs in zip(whole, cut, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[name] == theirs[name] for name in mine.keys() - RATES)


def test_a_bank_of_another_size_begins_drift_anew(start, tmp_path):
    start(tmp_path, flight=Monitoring(snapshot_every=3, snapshot_samples=6)).train()
    start(tmp_path, flight=Monitoring(snapshot_every=3, snapshot_samples=8), steps=12).train()
    assert ["drift" in row for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 0, 1]


def test_a_term_between_subjects_that_weighs_nothing_has_no_signs(start, tmp_path):
    places = Contrastive(contrast=Contrast(subject_weight=0))
    start(tmp_path, places, flight=Monitoring(snapshot_every=3, snapshot_samples=8)).train()
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert not last.keys() & {"global", "global_bank", "global_chance", "own_negatives"}
    assert last.keys() >= {"local", "placed", "spread", "uniformity"}


@pytest.mark.parametrize("objective", [Mae(), CONTRASTIVE, HYBRID], ids=lambda o: o.name)
def test_a_record_has_the_signs_that_make_sense_for_its_objective(start, tmp_path, objective):
    start(tmp_path, objective, flight=Monitoring(snapshot_every=3, snapshot_samples=8)).train()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [3, 6]
    last = rows[-1]
    assert last.keys() - {"learning_rate"} <= METRICS.keys()
    assert all(math.isfinite(value) for value in last.values())
    always = {"rank", "rank_share", "drift", "matched", "region", "mfu"}
    assert always <= last.keys() and last.keys() >= LOOP
    assert (last.keys() >= {"skill", "rebuilt_outside"}) == (objective.name != "contrastive")
    assert (last.keys() >= OF_CONTRAST) == (objective.name != "mae")
    assert ("gradient_ratio" in last) == (objective.name == "hybrid")
    assert 0 < last["mfu"] < 2 and 0 < last["rank_share"] <= 1.2 and last["share"] == 1


def test_the_bank_holds_two_places_of_each_subject_and_stays(start, tmp_path):
    run = start(tmp_path, flight=Monitoring(snapshot_every=3, snapshot_samples=8))
    first, again = run.sampler.bank(8, 3), run.sampler.bank(8, 8)
    subjects = torch.cat([part.subject for part in first]).tolist()
    assert len(set(subjects)) == 4 and subjects[:4] == subjects[4:]
    assert torch.equal(torch.cat([part.voxels for part in first]), again[0].voxels)
    assert not torch.equal(again[0].voxels[:4], again[0].voxels[4:])


@pytest.mark.parametrize("objective", [CONTRASTIVE, HYBRID], ids=lambda o: o.name)
def test_a_run_leaves_pictures_of_its_quarters(start, tmp_path, objective):
    flight = Monitoring(snapshot_every=1, snapshot_samples=6)
    start(tmp_path, objective, flight=flight, steps=8, checkpoint_steps=8).train()
    found = snapshots.read_images(tmp_path)
    assert [step for step, _ in found] == [2, 4, 6, 8]
    last = found[-1][1]
    assert last["input"].shape == last["attention"].shape == (4, 16, 16)
    assert np.array_equal(last["input"], found[0][1]["input"])  # the same crops every time
    assert last["attention"].mean() > 0 and np.isnan(last["masked"]).mean() > 0.5
    assert ("rebuilt" in last) == (objective.name == "hybrid")
    if "rebuilt" in last:
        seen = ~np.isnan(last["masked"])
        assert np.array_equal(last["rebuilt"][seen], last["input"][seen])
        assert not np.array_equal(last["rebuilt"], found[0][1]["rebuilt"])


def test_a_record_that_is_rare_still_shows_the_end():
    assert [step for step in (100, 200, 250) if snapshots.is_due(step, 100, 250)] == [100, 200, 250]
    assert [step for step in range(1, 101) if snapshots.is_due(step, 1, 100)] == [25, 50, 75, 100]


def test_a_run_ends_early_on_the_verdicts_that_the_study_names(start, tmp_path):
    """A frozen encoder: with a learning rate of next to nothing embeddings do not move."""
    dials = {"steps": 40, "learning_rate": 1e-30, "final_rate": 0.0, "log_steps": 1}
    flight = Monitoring(
        snapshot_every=2, snapshot_samples=4, collapse_after=0, stop_on=("collapsed",)
    )
    run = start(tmp_path, Mae(), flight=flight, **dials)
    with pytest.raises(StoppedError, match="as collapsed: The embeddings have not changed"):
        run.train()
    assert 6 <= run.step < 40
    assert start(tmp_path, Mae(), flight=flight, **dials).step == run.step  # nothing is lost
    heedless = flight.model_copy(update={"stop_on": ()})
    again = start(tmp_path, Mae(), flight=heedless, **dials)
    again.train()
    assert again.step == 40
