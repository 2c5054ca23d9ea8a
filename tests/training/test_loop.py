"""Training on real crops: it learns, it resumes bit for bit, its log never shows a step twice."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import torch

from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Custom, Mae
from ssl_pipeline.training import checkpoint
from ssl_pipeline.training.compute import select_compute
from ssl_pipeline.training.config import Training
from ssl_pipeline.training.interrupt import stop_event
from ssl_pipeline.training.loop import StoppedError
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.schedule import build_optimizer, learning_rate
from tests.conftest import crash_at_step
from tests.training.small_trainer import (
    CONTRASTIVE,
    HYBRID,
    MODEL,
    THROUGH_UNET,
    flat_weights,
    small_trainer,
    trained_weights,
)


@pytest.fixture(scope="module")
def undisturbed(study, tmp_path_factory):
    """The folder of a run that has ended, and its weights; do not change it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, trained_weights(small_trainer(folder, study.folder))


@pytest.fixture(scope="module")
def whole(undisturbed):
    """The weights that an undisturbed run ends with."""
    return undisturbed[1]


@pytest.fixture
def finished(undisturbed, tmp_path):
    """The folder of a run that has ended."""
    return shutil.copytree(undisturbed[0], tmp_path / "finished")


def test_a_run_cut_at_a_checkpoint_ends_with_the_same_weights(start, whole, tmp_path):
    crash_at_step(start(tmp_path / "cut"), 2)
    second = start(tmp_path / "cut")
    assert second.step == 2
    assert torch.equal(trained_weights(second), whole)
    steps = [row["step"] for row in read_metrics(tmp_path / "cut" / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("objective", [Mae(), CONTRASTIVE, HYBRID], ids=lambda o: o.name)
def test_every_objective_learns(start, tmp_path, objective):
    settings = {"learning_rate": 2e-3, "log_every": 5, "checkpoint_every": 40}
    start(
        tmp_path, objective, monitoring=Monitoring(snapshot_samples=4), steps=40, **settings
    ).train()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    parts = {
        name for name in ("reconstruction", "subject_contrast", "local_contrast") if name in rows[0]
    }
    assert (
        parts
        == {
            "mae": {"reconstruction"},
            "contrastive": {"subject_contrast", "local_contrast"},
            "hybrid": {"reconstruction", "subject_contrast", "local_contrast"},
        }[objective.name]
    )
    # 40 steps do not distinguish parts of one head: `subject_contrast` may not fall.
    for part in parts - {"subject_contrast"}:
        assert sum(r[part] for r in rows[-3:]) < sum(r[part] for r in rows[:3]), part


@pytest.mark.parametrize(
    ("objective", "settings"),
    [(Custom(terms=THROUGH_UNET), {"ema_decay": 0.9}), (HYBRID, {"gradient_accumulation": 2})],
    ids=lambda each: getattr(each, "name", None),
)
def test_a_resumed_run_ends_bit_for_bit_whatever_it_keeps(start, tmp_path, objective, settings):
    whole = trained_weights(start(tmp_path / "whole", objective, **settings))
    crash_at_step(start(tmp_path / "cut", objective, **settings), 3)
    assert torch.equal(trained_weights(start(tmp_path / "cut", objective, **settings)), whole)
    assert torch.isfinite(whole).all()


def test_a_resume_with_other_loader_threads_and_another_cadence_ends_the_same(
    start, whole, tmp_path
):
    crash_at_step(start(tmp_path / "cut", loader_threads=3, checkpoint_every=1), 3)
    second = start(tmp_path / "cut", loader_threads=2)
    assert second.step == 3
    assert torch.equal(trained_weights(second), whole)


def test_drop_path_is_drawn_by_sample_and_resumes(start, whole, tmp_path):
    model = MODEL.model_copy(update={"drop_path": 0.5})
    dropping = trained_weights(start(tmp_path / "dropping", model=model))
    assert not torch.equal(dropping, whole)
    crash_at_step(start(tmp_path / "cut", model=model), 3)
    again = start(tmp_path / "cut", model=model)
    torch.manual_seed(99)  # nothing is drawn from the global generator
    assert again.step == 2 and torch.equal(trained_weights(again), dropping)


def test_steps_divided_among_calls_and_trainers_end_bit_for_bit(start, tmp_path):
    settings = {"ema_decay": 0.9, "checkpoint_every": 100}
    whole = start(tmp_path / "whole", **settings).train()
    run = start(tmp_path / "parts", **settings)
    states = [run.train(2) for _ in range(3)]
    assert [state.step for state in states] == [2, 4, 6]
    assert_equal_states(states[-1], whole)
    other = start(tmp_path / "other", **settings)
    other.load_state(states[0])
    other.train(2)
    other.load_state(states[1])  # which neither run has changed
    assert_equal_states(other.train(), whole)


def assert_equal_states(first, second):
    assert first.step == second.step
    torch.testing.assert_close(first.objective, second.objective, rtol=0, atol=0)
    torch.testing.assert_close(first.ema, second.ema, rtol=0, atol=0)
    moments = (state.optimizer["state"] for state in (first, second))
    for mine, theirs in zip(*(each.values() for each in moments), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_averaged_weights_lie_between_those_of_the_steps(start, tmp_path):
    averaged = trained_weights(start(tmp_path / "averaged", ema_decay=0.5, learning_rate=1e-2))
    last = trained_weights(start(tmp_path / "last", learning_rate=1e-2))
    first = flat_weights(random_encoder(MODEL, 0))
    assert 0 < (averaged - first).norm() < (last - first).norm()
    assert torch.equal(trained_weights(start(tmp_path / "averaged", ema_decay=0.5)), averaged)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(start, finished):
    newest = max((finished / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-10])
    assert checkpoint.load_newest(finished / "checkpoints").step == 4
    assert start(finished).step == 4


def test_a_log_with_a_torn_last_line_is_cut_back(start, finished):
    log = finished / "metrics.jsonl"
    log.write_text(log.read_text() + json.dumps({"step": 9, "loss": 1}) + '\n{"step": 10, "lo')
    start(finished, steps=8).train()
    assert [row["step"] for row in read_metrics(log)] == list(range(1, 9))


def test_a_finished_run_is_not_trained_again(start, finished, whole):
    before = (finished / "metrics.jsonl").read_text()
    assert torch.equal(trained_weights(start(finished)), whole)
    assert (finished / "metrics.jsonl").read_text() == before


def test_a_signal_leaves_a_checkpoint_of_a_whole_step(start, whole, tmp_path):
    run = start(tmp_path, checkpoint_every=100)

    def signalled(done):
        if done == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run.train(on_step=signalled)
    assert start(tmp_path).step == 3
    assert torch.equal(trained_weights(start(tmp_path)), whole)


def test_a_stop_signal_outside_the_main_thread_is_never_given():
    seen = []

    def work():
        with stop_event() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_weights(start, tmp_path):
    run = start(tmp_path, log_every=100)

    def poisoned(done):
        if done == 3:
            with torch.no_grad():
                run.objective.encoder.embed.weight.fill_(torch.nan)

    with pytest.raises(StoppedError, match="step 4 as diverging: The loss is nan"):
        run.train(on_step=poisoned)
    assert start(tmp_path).step == 2


def test_the_schedule_rises_and_falls():
    section = Training(steps=100, warmup=0.1, learning_rate=1.0, min_learning_rate=0.0)
    rates = [learning_rate(step, section) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[-1] < 0.01 and rates[10:] == sorted(rates[10:], reverse=True)


def test_norms_and_biases_do_not_decay():
    decaying, others = build_optimizer(random_encoder(MODEL, 0), Training()).param_groups
    assert all(p.ndim > 1 for p in decaying["params"]) and others["weight_decay"] == 0


def test_what_was_decided_is_kept_on_resume(start, tmp_path):
    crash_at_step(start(tmp_path, threads=3), 4)
    other = start(tmp_path, threads=0, device="auto")
    assert other.compute.threads == 3 and other.step == 4 and not other.earlier_computes


def test_a_resume_with_other_threads_ends_the_same_but_for_rounding(start, whole, tmp_path):
    crash_at_step(start(tmp_path / "cut"), 3)
    second = start(tmp_path / "cut", threads=2)
    assert second.compute.threads == 2 and second.step == 2
    torch.testing.assert_close(trained_weights(second), whole)
    third = start(tmp_path / "cut", threads=2)
    assert {step: each.threads for step, each in third.earlier_computes.items()} == {2: 1}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("first, then", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_goes_on_on_another_device(start, tmp_path, first, then):
    crash_at_step(start(tmp_path, device=first), 3)
    second = start(tmp_path, device=then)
    assert second.compute.device == then and second.step == 2
    second.train()
    assert {step: each.device for step, each in second.earlier_computes.items()} == {2: first}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_blocks_have_the_attention_that_was_decided(start, tmp_path, precision):
    run = start(tmp_path, precision=precision)
    blocks = [*run.objective.encoder.blocks, *run.objective.heads["reconstruction"].blocks]
    assert {block.attn.fused_attn for block in blocks} == {precision == "fp32"}


def test_what_a_step_frees_is_there_for_the_next_one():
    """Every page that was given back to the kernel would be a fault when it is written again."""
    script = """
import resource
import subprocess
import sys
import torch
from torch import nn
from ssl_pipeline.training.compute import Compute
from ssl_pipeline.training.ranks import RankInfo

Compute("cpu", "fp32", True, 1).apply(RankInfo(), nn.Identity())
for _ in range(33):
    torch.ones(64 << 20, dtype=torch.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
    # In a process of its own, for other tests have shaped the memory of this one.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    faults = [int(line) for line in done.stdout.split()]
    assert len(faults) == 33, done.stderr
    # What else is allocated in between may push a block to new pages, a few times at the start.
    assert faults[-1] - faults[0] < 16 * (64 << 20) / resource.getpagesize()


def test_auto_takes_a_precision_that_this_machine_measured():
    assert select_compute(Training(device="cpu"), RankInfo()).precision in ("fp32", "bf16")
